//! Reads a client's description so that nothing in it is overlooked: each field is taken or set aside by name, and what is
//! left in the end and says something is refused.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::Error;

/// The fields of one object that nobody has looked at yet.
#[derive(Debug)]
pub(crate) struct Fields {
    client: &'static str,
    what: &'static str,
    left: Map<String, Value>,
}

impl Fields {
    /// Those of `object`, which is `client`'s `what`.
    pub(crate) fn of(client: &'static str, what: &'static str, object: &Value) -> Result<Self, Error> {
        match object {
            Value::Object(left) => Ok(Self { client, what, left: left.clone() }),
            Value::Null => Ok(Self { client, what, left: Map::new() }),
            _ => Err(answer(client, what, "it is no object")),
        }
    }

    /// One field. What is missing or null is the type's default.
    pub(crate) fn take<T: DeserializeOwned + Default>(&mut self, name: &str) -> Result<T, Error> {
        match self.left.remove(name) {
            None | Some(Value::Null) => Ok(T::default()),
            Some(value) => serde_json::from_value(value)
                .map_err(|e| answer(self.client, &format!("{}.{name}", self.what), &e.to_string())),
        }
    }

    /// An object in this one, to be read likewise.
    pub(crate) fn within(&mut self, name: &str, what: &'static str) -> Result<Self, Error> {
        let value: Value = self.take(name)?;
        Self::of(self.client, what, &value)
    }

    /// Sets fields aside that say nothing about the settings, or nothing that is not said elsewhere.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.left.remove(*name);
        }
    }

    /// Takes a text that must be one of these.
    pub(crate) fn expect(&mut self, name: &str, allowed: &[&str]) -> Result<String, Error> {
        let value: String = self.take(name)?;
        if value.is_empty() || allowed.contains(&value.as_str()) {
            return Ok(value);
        }
        Err(Error::Unsupported { setting: format!("{}.{name} = {value:?}", self.what), remedy: MAKE_IT })
    }

    /// Refuses what is left and says something.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let said: Vec<String> = self
            .left
            .iter()
            .filter(|(_, value)| !is_nothing(value))
            .map(|(name, value)| format!("{}.{name} = {}", self.what, short(&value.to_string())))
            .collect();
        match said.is_empty() {
            true => Ok(()),
            false => Err(Error::Unsupported { setting: said.join(", "), remedy: MAKE_IT }),
        }
    }
}

/// The remedy that is always there.
pub(crate) const MAKE_IT: &str =
    "make a container in standby on the destination yourself, and migrate into that";

/// Whether it is what a client writes where nothing was asked for.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(values) => values.iter().all(is_nothing),
        Value::Object(values) => values.values().all(is_nothing),
    }
}

pub(crate) fn answer(client: &'static str, what: &str, message: &str) -> Error {
    Error::Answer { client, what: what.into(), message: message.into() }
}

/// The beginning of a text that may be long.
pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_nobody_took_is_refused_by_name_when_it_says_something() {
        let object =
            json!({ "Memory": 7, "Links": null, "Devices": [], "Isolation": "", "Gpu": { "Count": 1 } });
        let mut fields = Fields::of("docker", "HostConfig", &object).unwrap();
        assert_eq!(fields.take::<i64>("Memory").unwrap(), 7);
        assert_eq!(fields.take::<Vec<String>>("Links").unwrap(), [""; 0]);
        let error = fields.finish().unwrap_err().to_string();
        assert!(error.contains("HostConfig.Gpu") && !error.contains("Isolation"), "{error}");
    }

    #[test]
    fn a_field_of_another_type_is_named() {
        let mut fields = Fields::of("docker", "HostConfig", &json!({ "Memory": "much" })).unwrap();
        let error = fields.take::<i64>("Memory").unwrap_err().to_string();
        assert!(error.contains("HostConfig.Memory"), "{error}");
    }
}
