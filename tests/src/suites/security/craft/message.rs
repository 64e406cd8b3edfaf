//! Messages of protocol buffers, read, changed and written without a description of them.

use anyhow::{bail, ensure, Context, Result};

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::suites::security) enum Value {
    Number(u64),
    Long([u8; 8]),
    Bytes(Vec<u8>),
    Short([u8; 4]),
}

/// The fields of a message, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::suites::security) struct Message(pub(in crate::suites::security) Vec<(u64, Value)>);

impl Message {
    pub(in crate::suites::security) fn parse(mut bytes: &[u8]) -> Result<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = number(&mut bytes)?;
            let value = match tag & 7 {
                0 => Value::Number(number(&mut bytes)?),
                1 => Value::Long(take(&mut bytes, 8)?.try_into()?),
                2 => {
                    let length = usize::try_from(number(&mut bytes)?)?;
                    Value::Bytes(take(&mut bytes, length)?.to_vec())
                }
                5 => Value::Short(take(&mut bytes, 4)?.try_into()?),
                kind => bail!("a field of kind {kind}"),
            };
            fields.push((tag >> 3, value));
        }
        Ok(Self(fields))
    }

    pub(in crate::suites::security) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (field, value) in &self.0 {
            let (kind, content) = match value {
                Value::Number(_) => (0, &[][..]),
                Value::Long(content) => (1, &content[..]),
                Value::Bytes(content) => (2, content.as_slice()),
                Value::Short(content) => (5, &content[..]),
            };
            put(&mut bytes, field << 3 | kind);
            match value {
                Value::Number(value) => put(&mut bytes, *value),
                Value::Bytes(content) => put(&mut bytes, content.len() as u64),
                Value::Long(_) | Value::Short(_) => {}
            }
            bytes.extend_from_slice(content);
        }
        bytes
    }

    /// The number in `field`, if there is one.
    pub(in crate::suites::security) fn number(&self, field: u64) -> Option<u64> {
        self.0.iter().find_map(|(number, value)| match value {
            Value::Number(value) if *number == field => Some(*value),
            _ => None,
        })
    }

    /// Puts `value` into `field`, in place of all that it held.
    pub(in crate::suites::security) fn set(&mut self, field: u64, value: Value) {
        let at = self.0.iter().position(|(number, _)| *number == field).unwrap_or(self.0.len());
        self.0.retain(|(number, _)| *number != field);
        self.0.insert(at.min(self.0.len()), (field, value));
    }

    /// As [`Message::set`], of a number.
    pub(in crate::suites::security) fn set_number(&mut self, field: u64, value: u64) {
        self.set(field, Value::Number(value));
    }

    /// Changes the first message in `field`.
    pub(in crate::suites::security) fn within(
        &mut self,
        field: u64,
        change: impl FnOnce(&mut Self),
    ) -> Result<()> {
        let (_, value) = self
            .0
            .iter_mut()
            .find(|(number, _)| *number == field)
            .with_context(|| format!("no field {field}"))?;
        let Value::Bytes(content) = value else { bail!("field {field} is no message") };
        let mut message = Self::parse(content)?;
        change(&mut message);
        *content = message.bytes();
        Ok(())
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    ensure!(bytes.len() >= length, "a message is cut short");
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(taken)
}

fn number(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a number without an end")
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 2, 0x18, 7, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4];
        let mut message = Message::parse(&bytes).unwrap();
        assert_eq!(message.bytes(), bytes);
        assert_eq!(message.number(1), Some(150));
        message.within(2, |inner| inner.set_number(3, 1 << 40)).unwrap();
        let inner = message.0.iter().find_map(|(field, value)| match value {
            Value::Bytes(content) if *field == 2 => Message::parse(content).ok(),
            _ => None,
        });
        assert_eq!(inner.unwrap().number(3), Some(1 << 40));
        assert!(Message::parse(&bytes[..bytes.len() - 1]).is_err());
    }
}
