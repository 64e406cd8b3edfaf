//! Numbers, words and tables as people read them.

/// `312.4 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // In tenths, and whole numbers all the way.
    let mut tenths = count.saturating_mul(10) / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// `312.4`, in MiB, where numbers stand below each other.
pub(crate) fn mebibytes(count: u64) -> String {
    let tenths = u128::from(count) * 10 / (1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// `87 ms`, `1.24 s`, `2 min 5 s`.
pub(crate) fn milliseconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// `2026-11-21 10:00:00` of what RFC 3339 says of UTC.
pub(crate) fn moment(at: &str) -> String {
    at.get(..19).unwrap_or(at).replace('T', " ")
}

/// What begins an id, as far as people want to see it.
pub(crate) fn short(id: &str) -> &str {
    let is_hash = id.len() >= 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hash {
        &id[..12]
    } else {
        id
    }
}

/// Without what would steer a terminal: names and reasons may come from another host. Lines stay lines.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Rows below titles, in columns.
pub(crate) fn table<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| plain(cell))).collect();
    let mut widths = titles.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; N]| {
        let cells: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    let titles = titles.map(str::to_owned);
    std::iter::once(&titles).chain(&rows).map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0, 1023, 1024, 1536, 1 << 20, 327_600_000, 3 << 40, u64::MAX].map(bytes);
        assert_eq!(shown[..6], ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "312.4 MiB"]);
        assert!(shown[6..].iter().all(|text| text.ends_with("TiB")), "{shown:?}");
        assert_eq!([0, 327_600_000, 1 << 30].map(mebibytes), ["0.0", "312.4", "1024.0"]);
        assert_eq!([87, 1_240, 125_400].map(milliseconds), ["87 ms", "1.24 s", "2 min 5 s"]);
        assert_eq!(moment("2026-11-21T10:00:00.123Z"), "2026-11-21 10:00:00");
        assert_eq!(short(&"0a".repeat(32)), "0a0a0a0a0a0a");
        assert_eq!(short("web"), "web");
    }

    #[test]
    fn nobody_steers_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\r\nc"), "a\u{fffd}[2Jb\u{fffd}\nc");
        assert!(!table(["NAME"], &[["\x1b]0;x\x07".to_owned()]]).contains('\x1b'));
    }

    #[test]
    fn columns_are_as_wide_as_the_widest() {
        let rows = [["web".to_owned(), "up".to_owned()], ["database".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "X"], &rows), "NAME      X\nweb       up\ndatabase");
    }
}
