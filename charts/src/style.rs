//! What all charts look like.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::error::Refusal;

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

/// Where notes are.
const NOTE: u32 = 11;
const NOTE_LINE: u32 = 15;
/// So many letters of it fit beside one another.
const LETTERS: usize = 150;

/// Writes a note below, and answers the area above.
pub(crate) fn noted<B: DrawingBackend>(
    whole: &DrawingArea<B, Shift>,
    note: &str,
) -> Result<DrawingArea<B, Shift>, Refusal>
where
    B::ErrorType: 'static,
{
    let lines = broken(note);
    let height = NOTE_LINE * u32::try_from(lines.len())?;
    let above = SIZE.1 - height - if lines.is_empty() { 0 } else { 4 };
    let (area, below) = whole.split_vertically(above);
    for (number, line) in lines.iter().enumerate() {
        let place = (12, i32::try_from(number)? * i32::try_from(NOTE_LINE)?);
        below.draw(&Text::new(line.as_str(), place, (FONT, NOTE)))?;
    }
    Ok(area)
}

/// A text in lines.
fn broken(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.len() + word.len() < LETTERS) {
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}
