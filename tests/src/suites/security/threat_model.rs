//! `docs/threat-model.md` names a test for each claim: here is looked whether there is one.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    const TEXT: &str = include_str!("../../../../docs/threat-model.md");

    /// All of Rust's files below `path` in one text.
    fn sources(path: &Path) -> String {
        if path.is_file() {
            return fs::read_to_string(path).unwrap_or_default();
        }
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| sources(&entry.path())).collect()
    }

    /// The two parts of `KIND `PLACE`, NAME`.
    fn test_of(item: &str) -> Option<(String, String)> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
        let (place, name) = item.trim().rsplit_once("`, ")?;
        if let Some(suite) = place.strip_prefix("suite `") {
            let directory = repository.join("tests/src/suites").join(suite);
            return Some((sources(&directory), name.to_owned()));
        }
        let file = repository.join(place.strip_prefix('`')?);
        Some((sources(&file), format!("fn {}(", name.trim_matches('`'))))
    }

    #[test]
    fn each_claim_has_a_test_that_exists() {
        let lines = || TEXT.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| claim"));
        assert!(lines().count() > 15);
        for line in lines() {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
            assert_eq!(cells.len(), 2, "{line}");
            for item in cells[1].split("; ") {
                let (source, name) = test_of(item).unwrap_or_else(|| panic!("what is {item:?}?"));
                assert!(source.contains(&name), "there is no {name:?}: {line}");
            }
        }
    }
}
