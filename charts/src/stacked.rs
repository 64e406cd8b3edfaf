//! Bars made of parts.

use plotters::prelude::*;

use crate::error::{Error, Refusal};
use crate::style::{colour, noted, FONT, SIZE, SMALL, TITLE};

/// One bar.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bar {
    /// What it is.
    pub name: String,
    /// Its parts, from the left: names that come again are the same part, and have the same colour.
    pub parts: Vec<(String, f64)>,
}

/// A chart of lying bars, the first on top.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stacked {
    /// What it shows.
    pub title: String,
    /// What is counted, with its unit.
    pub unit: String,
    /// The bars.
    pub bars: Vec<Bar>,
    /// What stands below them, small.
    pub note: String,
}

const BAR: f64 = 0.7;

impl Stacked {
    /// The chart as an SVG document.
    ///
    /// # Errors
    /// When there are no bars, or parts that are no lengths.
    pub fn svg(&self) -> Result<String, Error> {
        let title = || self.title.clone();
        if self.bars.iter().all(|bar| bar.parts.is_empty()) {
            return Err(Error::Empty { title: title() });
        }
        let lengths = || self.bars.iter().flat_map(|bar| bar.parts.iter().map(|(_, length)| *length));
        if lengths().any(|length| !length.is_finite() || length < 0.0) {
            return Err(Error::Values { title: title() });
        }
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|reason| Error::Drawing { title: title(), reason })?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Refusal> {
        let (names, bars) = (self.part_names(), self.bars.len());
        let longest = self.bars.iter().map(Bar::length).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let name_of = |at: &f64| self.bar_at(bars, *at).unwrap_or_default();
        let whole = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        whole.fill(&WHITE)?;
        let area = noted(&whole, &self.note)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, (FONT, TITLE))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(190)
            // Room for the legend beside the longest.
            .build_cartesian_2d(0.0..longest * 1.3, 0.0..as_float(bars))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(&self.unit)
            .y_labels(bars * 2 + 1)
            .y_label_formatter(&name_of)
            .label_style((FONT, SMALL))
            .draw()?;
        for (index, part) in names.iter().enumerate() {
            let boxes: Vec<_> = self.boxes_of(part).collect();
            let boxes = boxes.into_iter().map(|corners| Rectangle::new(corners, colour(index).filled()));
            chart
                .draw_series(boxes)?
                .label(*part)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour(index).filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.2))
            .label_font((FONT, SMALL))
            .draw()?;
        Ok(whole.present()?)
    }

    /// Each part once, as they come.
    fn part_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.bars.iter().flat_map(|bar| &bar.parts) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// Where a part lies in every bar that has it.
    fn boxes_of<'a>(&'a self, part: &'a str) -> impl Iterator<Item = [(f64, f64); 2]> + 'a {
        let bars = self.bars.len();
        self.bars.iter().enumerate().flat_map(move |(index, bar)| {
            let middle = as_float(bars - index) - 0.5;
            let mut begin = 0.0;
            bar.parts.iter().filter_map(move |(name, length)| {
                let left = begin;
                begin += length;
                let corners = [(left, middle - BAR / 2.0), (begin, middle + BAR / 2.0)];
                (name == part).then_some(corners)
            })
        })
    }

    /// The name of the bar whose middle is there.
    fn bar_at(&self, bars: usize, at: f64) -> Option<String> {
        let names = self.bars.iter().enumerate();
        names
            .filter(|(index, _)| (as_float(bars - index) - 0.5 - at).abs() < 0.01)
            .map(|(_, bar)| bar.name.clone())
            .next()
    }
}

impl Bar {
    fn length(&self) -> f64 {
        self.parts.iter().map(|(_, length)| length).sum()
    }
}

/// Charts have few bars.
fn as_float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, parts: &[(&str, f64)]) -> Bar {
        Bar {
            name: name.into(),
            parts: parts.iter().map(|(name, length)| ((*name).into(), *length)).collect(),
        }
    }

    #[test]
    fn every_bar_has_its_name_and_every_part_its_place() {
        let chart = Stacked {
            title: "where the gap goes".into(),
            unit: "ms".into(),
            bars: vec![bar("16 MiB", &[("freeze", 6.0), ("dump", 13.0)]), bar("1 GiB", &[("dump", 20.0)])],
            note: String::new(),
        };
        assert_eq!(chart.part_names(), ["freeze", "dump"]);
        let dumps: Vec<_> = chart.boxes_of("dump").collect();
        assert_eq!(
            dumps.iter().map(|[from, to]| (from.0, to.0)).collect::<Vec<_>>(),
            [(6.0, 19.0), (0.0, 20.0)]
        );
        let svg = chart.svg().unwrap();
        for word in ["16 MiB", "1 GiB", "freeze", "dump"] {
            assert!(svg.contains(word), "{word}: {svg}");
        }
    }

    #[test]
    fn what_is_no_length_is_refused() {
        let of = |parts: &[(&str, f64)]| Stacked { bars: vec![bar("a", parts)], ..Stacked::default() }.svg();
        assert!(matches!(of(&[]), Err(Error::Empty { .. })));
        assert!(matches!(of(&[("b", -1.0)]), Err(Error::Values { .. })));
        assert!(of(&[("b", 0.0)]).is_ok());
    }
}
