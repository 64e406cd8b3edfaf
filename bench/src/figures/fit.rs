//! A straight line through measurements.

/// A line: how much more for each step, and what there is without any.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// More of y for each x.
    pub slope: f64,
    /// y without any x.
    pub fixed: f64,
}

/// The line with the least squares of distances; nothing when all x are the same.
pub fn fit(points: &[(f64, f64)]) -> Option<Fit> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if points.len() < 2 || spread <= 0.0 {
        return None;
    }
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread;
    Some(Fit { slope, fixed: y - slope * x })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again() {
        let points: Vec<(f64, f64)> = [16.0, 128.0, 1024.0].map(|x| (x, 50.0 + 0.25 * x)).to_vec();
        let line = fit(&points).unwrap();
        assert!((line.slope - 0.25).abs() < 1e-9 && (line.fixed - 50.0).abs() < 1e-6, "{line:?}");
    }

    #[test]
    fn a_point_is_no_line() {
        assert_eq!(fit(&[(1.0, 2.0)]), None);
        assert_eq!(fit(&[(1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(fit(&[]), None);
    }
}
