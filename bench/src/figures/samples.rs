//! Figures: what they are of, and the middle of what was measured.

use serde::Serialize;

/// What a figure is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// The suite: `migration`.
    pub suite: &'static str,
    /// What was worked on: `m128`.
    pub work: String,
    /// What did it: `fastmig-pre-copy`, `runc-tar`.
    pub tool: String,
    /// What was measured: `gap`.
    pub metric: &'static str,
    /// In what: `ms`, `MiB/s`, `bytes`, `ratio`.
    pub unit: &'static str,
}

/// Several measurements of the same.
#[derive(Debug, Clone)]
pub struct Samples {
    subject: Subject,
    values: Vec<f64>,
}

/// The middle of them, and how far they spread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    #[serde(flatten)]
    subject: Subject,
    n: usize,
    median: f64,
    min: f64,
    max: f64,
}

impl Samples {
    /// None yet.
    pub const fn of(subject: Subject) -> Self {
        Self { subject, values: Vec::new() }
    }

    /// One more; what is not a number counts for nothing.
    pub fn add(&mut self, value: f64) {
        if value.is_finite() {
            self.values.push(value);
        }
    }

    /// Whether this is what they are of.
    pub fn are_of(&self, subject: &Subject) -> bool {
        self.subject == *subject
    }

    /// The middle; nothing where nothing was measured.
    pub fn figure(&self) -> Option<Figure> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        Some(Figure { subject: self.subject.clone(), n: sorted.len(), median, min, max })
    }
}

impl Figure {
    /// What it is of.
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The middle.
    pub const fn median(&self) -> f64 {
        self.median
    }

    /// The least and the most.
    pub const fn spread(&self) -> (f64, f64) {
        (self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject { suite: "s", work: "w".into(), tool: "t".into(), metric: "gap", unit: "ms" }
    }

    fn of(values: &[f64]) -> Option<Figure> {
        let mut samples = Samples::of(subject());
        values.iter().for_each(|value| samples.add(*value));
        samples.figure()
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let figure = of(&[9.0, 1.0, 5.0]).unwrap();
        assert_eq!((figure.median(), figure.spread(), figure.n), (5.0, (1.0, 9.0), 3));
        assert_eq!(of(&[9.0, 1.0, 5.0, 7.0]).unwrap().median(), 6.0);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[f64::NAN, 2.0]).unwrap().n, 1);
    }

    #[test]
    fn a_figure_is_one_flat_object() {
        let value = serde_json::to_value(of(&[2.0]).unwrap()).unwrap();
        let wanted = serde_json::json!({"suite": "s", "work": "w", "tool": "t", "metric": "gap", "unit": "ms",
            "n": 1, "median": 2.0, "min": 2.0, "max": 2.0});
        assert_eq!(value, wanted);
    }
}
