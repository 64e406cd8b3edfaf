//! What can go wrong when a chart is drawn.

/// Why there is no chart.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to draw.
    #[error("the chart {title:?} has no values")]
    Empty {
        /// The chart.
        title: String,
    },
    /// The values have no place on an axis: not numbers, or not above zero on one in powers.
    #[error("the chart {title:?} has values that no axis holds")]
    Values {
        /// The chart.
        title: String,
    },
    /// The drawing library refused.
    #[error("cannot draw the chart {title:?}: {reason}")]
    Drawing {
        /// The chart.
        title: String,
        /// In its words.
        reason: Refusal,
    },
}

/// What the drawing library says.
pub(crate) type Refusal = Box<dyn std::error::Error + Send + Sync>;
