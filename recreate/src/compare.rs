//! Whether a container came out as it was described.

use serde_json::Value;

use crate::fields::short;
use crate::settings::Settings;

/// Where the two are not the same, in words.
pub(crate) fn differences(wanted: &Settings, made: &Settings) -> Vec<String> {
    let (wanted, made) = (flat(wanted), flat(made));
    let mut words = Vec::new();
    for ((key, wanted), (_, made)) in wanted.iter().zip(&made) {
        if wanted != made {
            let told = |value: &Value| short(&value.to_string());
            words.push(format!("{key} is {} and not {}", told(made), told(wanted)));
        }
    }
    words
}

/// Its fields by name, with lists in one order where the order says nothing.
fn flat(settings: &Settings) -> Vec<(String, Value)> {
    let mut fields = Vec::new();
    if let Ok(Value::Object(object)) = serde_json::to_value(settings) {
        for (key, value) in object {
            match value {
                Value::Object(inner) if ["limits", "rights"].contains(&key.as_str()) => {
                    fields.extend(inner.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
                }
                value => fields.push((key, value)),
            }
        }
    }
    for (key, value) in &mut fields {
        if let (Value::Array(values), true) = (value, key != "command") {
            values.sort_by_key(ToString::to_string);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Limits;

    #[test]
    fn differences_are_named_and_orders_that_say_nothing_are_none() {
        let wanted = Settings {
            env: vec!["A=1".into(), "B=2".into()],
            limits: Limits { memory: 7, ..Limits::default() },
            ..Settings::default()
        };
        let mut made = Settings { env: vec!["B=2".into(), "A=1".into()], ..wanted.clone() };
        assert_eq!(differences(&wanted, &made), [""; 0]);
        made.limits.memory = 8;
        made.command = vec!["sh".into()];
        let words = differences(&wanted, &made).join("; ");
        assert!(words.contains("limits.memory is 8 and not 7") && words.contains("command"), "{words}");
    }
}
