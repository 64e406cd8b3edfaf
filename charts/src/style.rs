//! What all charts look like.

use plotters::style::RGBColor;

/// Width and height of a chart, in pixels.
pub(crate) const SIZE: (u32, u32) = (900, 420);
pub(crate) const FONT: &str = "sans-serif";
/// Where text is small.
pub(crate) const SMALL: u32 = 13;
pub(crate) const TITLE: u32 = 18;

/// Told apart by eyes that see few colours, too (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
    RGBColor(0, 0, 0),
];

/// The colour of the so-many-th series.
pub(crate) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}
