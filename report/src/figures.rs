//! Numbers as people read them.

use std::time::Duration;

/// `312.4 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (as_float(count), 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// In MiB.
pub(crate) fn mebibytes(count: u64) -> f64 {
    as_float(count) / f64::from(1 << 20)
}

/// `87 ms`, `1.24 s`.
pub(crate) fn milliseconds(ms: u64) -> String {
    if ms < 1000 {
        format!("{ms} ms")
    } else {
        format!("{:.2} s", Duration::from_millis(ms).as_secs_f64())
    }
}

/// For charts, which need no more digits than that.
#[allow(clippy::cast_precision_loss, reason = "a chart shows three digits")]
pub(crate) fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0, 1023, 1536, 1 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "1.0 GiB"]);
        assert_eq!([87, 1240].map(milliseconds), ["87 ms", "1.24 s"]);
    }
}
