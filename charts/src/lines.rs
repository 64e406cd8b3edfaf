//! Values along an axis.

use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::error::{Error, Refusal};
use crate::style::{colour, noted, FONT, SIZE, SMALL, TITLE};

/// One of the two axes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Axis {
    /// What it counts, with its unit.
    pub label: String,
    /// In powers: each step is so many times the one before.
    pub powers: bool,
}

/// Values that belong together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// What the legend calls them.
    pub name: String,
    /// Where they are, along both axes.
    pub points: Vec<(f64, f64)>,
}

/// A moment on the horizontal axis.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mark {
    /// Where it is.
    pub at: f64,
    /// What happened then.
    pub name: String,
}

/// A chart of lines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lines {
    /// What it shows.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis, which begins at zero unless it is in powers.
    pub y: Axis,
    /// What is drawn.
    pub series: Vec<Series>,
    /// Moments that are told.
    pub marks: Vec<Mark>,
    /// Whether each value gets a dot: for few of them.
    pub dots: bool,
    /// What stands below it, small.
    pub note: String,
}

impl Lines {
    /// The chart as an SVG document.
    ///
    /// # Errors
    /// When there are no values, or some that the axes do not hold.
    pub fn svg(&self) -> Result<String, Error> {
        let [x, y] = self.ranges()?;
        match (self.x.powers, self.y.powers) {
            (false, false) => self.draw(x.0..x.1, y.0..y.1),
            (true, false) => self.draw((x.0..x.1).log_scale(), y.0..y.1),
            (false, true) => self.draw(x.0..x.1, (y.0..y.1).log_scale()),
            (true, true) => self.draw((x.0..x.1).log_scale(), (y.0..y.1).log_scale()),
        }
    }

    /// From where to where both axes go.
    fn ranges(&self) -> Result<[(f64, f64); 2], Error> {
        let points = || self.series.iter().flat_map(|series| series.points.iter().copied());
        if points().next().is_none() {
            return Err(Error::Empty { title: self.title.clone() });
        }
        let x = range(points().map(|(x, _)| x), &self.x, false);
        let y = range(points().map(|(_, y)| y), &self.y, true);
        x.zip(y).map(|(x, y)| [x, y]).ok_or_else(|| Error::Values { title: self.title.clone() })
    }

    fn draw<X, Y>(&self, x: X, y: Y) -> Result<String, Error>
    where
        X: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
        Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
        Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    {
        let mut svg = String::new();
        self.draw_into(&mut svg, x, y)
            .map_err(|reason| Error::Drawing { title: self.title.clone(), reason })?;
        Ok(svg)
    }

    fn draw_into<X, Y>(&self, svg: &mut String, x: X, y: Y) -> Result<(), Refusal>
    where
        X: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
        Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
        Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    {
        let [_, (bottom, top)] = self.ranges()?;
        let whole = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        whole.fill(&WHITE)?;
        let area = noted(&whole, &self.note)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, (FONT, TITLE))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .x_label_formatter(&number)
            .y_label_formatter(&number)
            .label_style((FONT, SMALL))
            .draw()?;
        for (index, series) in self.series.iter().enumerate() {
            let stroke = ShapeStyle::from(&colour(index)).stroke_width(2);
            let line = LineSeries::new(series.points.iter().copied(), stroke);
            let drawn = chart.draw_series(line)?;
            if !series.name.is_empty() {
                drawn
                    .label(&series.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour(index)));
            }
            if self.dots {
                let dots = series.points.iter().map(|point| Circle::new(*point, 3, colour(index).filled()));
                chart.draw_series(dots)?;
            }
        }
        for mark in &self.marks {
            let line = PathElement::new([(mark.at, bottom), (mark.at, top)], BLACK.mix(0.4));
            chart.draw_series([line])?;
            let text = Text::new(mark.name.clone(), (mark.at, top), (FONT, SMALL));
            chart.draw_series([text])?;
        }
        if self.series.iter().any(|series| !series.name.is_empty()) {
            chart
                .configure_series_labels()
                // What is drawn in powers rises: the room is on the left.
                .position(match self.x.powers && self.y.powers {
                    true => SeriesLabelPosition::UpperLeft,
                    false => SeriesLabelPosition::UpperRight,
                })
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.2))
                .label_font((FONT, SMALL))
                .draw()?;
        }
        Ok(whole.present()?)
    }
}

/// A little more than all values; nothing when an axis cannot hold them.
fn range(values: impl Iterator<Item = f64>, axis: &Axis, from_zero: bool) -> Option<(f64, f64)> {
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        if !value.is_finite() || (axis.powers && value <= 0.0) {
            return None;
        }
        (least, most) = (least.min(value), most.max(value));
    }
    if axis.powers {
        return Some((least / 1.5, most * 1.5));
    }
    if from_zero {
        return Some((least.min(0.0), if most > 0.0 { most * 1.1 } else { 1.0 }));
    }
    let room = if most > least { 0.0 } else { 1.0 };
    Some((least - room, most + room))
}

/// As short as it is exact enough: 1500 and 0.25, not 1500.0000.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the drawing library asks for references")]
fn number(value: &f64) -> String {
    let digits = if value.abs() >= 100.0 { 0 } else { 2 };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(points: &[(f64, f64)]) -> Lines {
        Lines {
            title: "gap < memory".into(),
            series: vec![Series { name: "fastmig".into(), points: points.to_vec() }],
            marks: vec![Mark { at: 2.0, name: "freeze".into() }],
            dots: true,
            ..Lines::default()
        }
    }

    #[test]
    fn a_chart_holds_its_words_and_a_dot_for_each_value() {
        let svg = lines(&[(1.0, 3.0), (2.0, 4.0), (3.0, 5.0)]).svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("freeze") && svg.contains("fastmig"), "{svg}");
        assert!(svg.contains("gap &lt; memory"), "text is not markup: {svg}");
        assert_eq!(svg.matches("<circle").count(), 3);
    }

    #[test]
    fn what_no_axis_holds_is_refused() {
        assert!(matches!(lines(&[]).svg(), Err(Error::Empty { .. })));
        assert!(matches!(lines(&[(0.0, f64::NAN)]).svg(), Err(Error::Values { .. })));
        let mut powers = lines(&[(1.0, 1.0), (16.0, 0.0)]);
        assert!(powers.svg().is_ok());
        powers.y.powers = true;
        assert!(matches!(powers.svg(), Err(Error::Values { .. })));
    }

    #[test]
    fn a_note_is_cut_into_lines_that_fit() {
        let mut chart = lines(&[(1.0, 3.0), (2.0, 4.0)]);
        chart.note = ["word"; 60].join(" ");
        let svg = chart.svg().unwrap();
        let longest = svg.lines().filter(|line| line.contains("word")).map(str::len).max();
        assert!(longest.is_some_and(|longest| longest <= 150), "{longest:?}");
        assert_eq!(svg.matches("word").count(), 60);
    }

    #[test]
    fn one_value_alone_is_a_chart() {
        assert!(lines(&[(1.0, 0.0)]).svg().is_ok());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.25, 1.5, 1500.0, 100.0, 20.0].map(|value| number(&value)),
            ["0.25", "1.5", "1500", "100", "20"]
        );
    }
}
