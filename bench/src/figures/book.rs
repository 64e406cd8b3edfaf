//! What a run writes down while it goes on.

use super::{judge, Failure, Figure, LeftOut, Machine, Report, Samples, Subject};

/// All that was measured so far, in the order of its first measurement.
#[derive(Debug)]
pub struct Book {
    /// Where it is measured.
    pub machine: Machine,
    samples: Vec<Samples>,
    left_out: Vec<LeftOut>,
    failures: Vec<Failure>,
}

impl Default for Book {
    fn default() -> Self {
        Self { machine: Machine::this(), samples: Vec::new(), left_out: Vec::new(), failures: Vec::new() }
    }
}

impl Book {
    /// One more measurement of `subject`.
    pub fn add(&mut self, subject: Subject, value: f64) {
        if let Some(samples) = self.samples.iter_mut().find(|samples| samples.are_of(&subject)) {
            samples.add(value);
            return;
        }
        let mut samples = Samples::of(subject);
        samples.add(value);
        self.samples.push(samples);
    }

    /// A tool is left out; once is enough.
    pub fn leave_out(&mut self, suite: &'static str, tool: &str, reason: &str) {
        let left_out = LeftOut { suite, tool: tool.to_owned(), reason: reason.to_owned() };
        if !self.left_out.contains(&left_out) {
            self.left_out.push(left_out);
        }
    }

    /// A part has failed.
    pub fn fail(&mut self, suite: &'static str, part: &str, error: &str) {
        self.failures.push(Failure { suite, part: part.to_owned(), error: error.to_owned() });
    }

    /// The middles so far.
    pub fn figures(&self) -> Vec<Figure> {
        self.samples.iter().filter_map(Samples::figure).collect()
    }

    /// The run as a whole.
    pub fn report(&self) -> Report {
        let results = self.figures();
        Report {
            machine: self.machine.clone(),
            targets: judge(&results),
            results,
            left_out: self.left_out.clone(),
            failures: self.failures.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(tool: &str) -> Subject {
        Subject { suite: "migration", work: "m128".into(), tool: tool.into(), metric: "gap", unit: "ms" }
    }

    #[test]
    fn the_report_is_as_others_read_it() {
        let mut book = Book::default();
        [3.0, 1.0, 2.0].into_iter().for_each(|value| book.add(subject("fastmig-stop-copy"), value));
        book.add(subject("runc-tar"), 40.0);
        book.leave_out("migration", "image-streamer", "no package");
        book.leave_out("migration", "image-streamer", "no package");
        book.fail("start", "", "no host");
        let told = serde_json::to_value(book.report()).unwrap();
        assert_eq!(told["results"].as_array().unwrap().len(), 2);
        let first = serde_json::json!({"suite": "migration", "work": "m128", "tool": "fastmig-stop-copy", "metric": "gap",
            "unit": "ms", "n": 3, "median": 2.0, "min": 1.0, "max": 3.0});
        assert_eq!(told["results"][0], first);
        assert!(told["machine"]["kernel"].is_string() && told["machine"]["cores"].is_u64());
        assert_eq!(told["left_out"].as_array().unwrap().len(), 1);
        assert_eq!(told["failures"][0]["error"], "no host");
    }
}
