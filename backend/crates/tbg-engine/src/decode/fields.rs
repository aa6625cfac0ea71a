//! Reading one field of a `data` object: its type, its limits, its default.

use serde_json::{Map, Value};

use super::json::is_dirty;
use super::{Reason, Refusal};

/// The greatest difficulty that there is: the target of difficulty 1 (`0xFFFF · 2^208`) over a hash of 1. Whatever
/// claims more is no work, and would break every sum that it is part of.
pub(super) const MAX_DIFFICULTY: f64 = 65_535.0 * (1_u128 << 104) as f64 * (1_u128 << 104) as f64;

/// The `data` object of one event. Reading a field normalises it in place, so that what is stored is
/// what was understood.
pub(super) struct Fields {
    pub(super) map: Map<String, Value>,
    /// Flat stream entries carry everything as text.
    flat: bool,
}

impl Fields {
    pub(super) fn new(map: Map<String, Value>, flat: bool) -> Self {
        Self { map, flat }
    }

    /// A text of at most `max` characters.
    pub(super) fn text(&mut self, name: &str, default: &str, max: usize) -> Result<String, Refusal> {
        let text = match self.map.get(name) {
            None | Some(Value::Null) => default.to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(_) => return Err(bad_type(name, "a text")),
        };
        if text.chars().count() > max {
            return Err(bad_value(name, format_args!("at most {max} characters")));
        }
        if is_dirty(&text) {
            return Err(bad_value(name, format_args!("no control characters")));
        }
        if !self.map.contains_key(name) || self.map.get(name) == Some(&Value::Null) {
            self.map.insert(name.to_owned(), Value::String(text.clone()));
        }
        Ok(text)
    }

    /// A text that may be absent, cut at `max` characters rather than refused: it is only kept.
    pub(super) fn extra(&self, name: &str, max: usize) -> Option<String> {
        let text = self.map.get(name)?.as_str()?;
        (!text.is_empty()).then(|| text.chars().take(max).collect())
    }

    /// A finite number that is not negative, nor above what a difficulty can be.
    pub(super) fn number(&mut self, name: &str, default: f64) -> Result<f64, Refusal> {
        let number = match self.map.get(name) {
            None | Some(Value::Null) => default,
            Some(Value::Number(number)) => number.as_f64().unwrap_or(f64::NAN),
            Some(Value::String(text)) if self.flat => {
                text.trim().parse().map_err(|_| bad_type(name, "a number"))?
            }
            Some(_) => return Err(bad_type(name, "a number")),
        };
        if !(0.0..=MAX_DIFFICULTY).contains(&number) {
            return Err(bad_value(name, format_args!("a finite number from 0 to {MAX_DIFFICULTY:e}")));
        }
        self.map.insert(name.to_owned(), Value::from(number));
        Ok(number)
    }

    /// A hashrate in H/s. A flat entry may give it an SI suffix; what cannot be read there is 0.
    pub(super) fn hashrate(&mut self, name: &str) -> Result<f64, Refusal> {
        if self.flat
            && let Some(Value::String(text)) = self.map.get(name)
        {
            let rate = si_number(text);
            self.map.insert(name.to_owned(), Value::from(rate));
            return Ok(rate);
        }
        self.number(name, 0.0)
    }

    /// A whole number from 0 to `max`.
    pub(super) fn integer(&mut self, name: &str, max: i64) -> Result<i64, Refusal> {
        let number = match self.map.get(name) {
            None | Some(Value::Null) => 0,
            // A whole number beyond 64 bits reaches us as a double: out of range, not of a wrong type.
            Some(Value::Number(number)) => match number.as_i64() {
                Some(number) => number,
                None if number.as_f64().is_some_and(|n| n.abs() < i64::MAX as f64) => {
                    return Err(bad_type(name, "a whole number"));
                }
                None => -1,
            },
            Some(Value::String(text)) if self.flat => match text.trim().parse() {
                Ok(number) => number,
                Err(_) if text.trim().bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => -1,
                Err(_) => return Err(bad_type(name, "a whole number")),
            },
            Some(_) => return Err(bad_type(name, "a whole number")),
        };
        if !(0..=max).contains(&number) {
            return Err(bad_value(name, format_args!("between 0 and {max}")));
        }
        self.map.insert(name.to_owned(), Value::from(number));
        Ok(number)
    }

    /// A flag, also as text `true`, `false`, `1`, `0`; stored as a JSON boolean, because an index of
    /// the archive casts it (pitfall 23).
    pub(super) fn flag(&mut self, name: &str, default: bool) -> Result<bool, Refusal> {
        let flag = match self.map.get(name) {
            None | Some(Value::Null) => default,
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => match text.as_str() {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(bad_type(name, "true or false")),
            },
            Some(_) => return Err(bad_type(name, "true or false")),
        };
        self.map.insert(name.to_owned(), Value::Bool(flag));
        Ok(flag)
    }

    /// Gives a field the name that the rest of the program knows.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if let Some(value) = self.map.remove(from) {
            self.map.entry(to.to_owned()).or_insert(value);
        }
    }
}

/// A number with an optional SI suffix K … E; 0 when it cannot be read (`mining.md` §2.4).
pub(super) fn si_number(text: &str) -> f64 {
    let text = text.trim();
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, suffix)) => {
            let factor = match suffix.to_ascii_uppercase() {
                'K' => 1e3,
                'M' => 1e6,
                'G' => 1e9,
                'T' => 1e12,
                'P' => 1e15,
                'E' => 1e18,
                _ => 1.0,
            };
            (if factor > 1.0 { &text[..at] } else { text }, factor)
        }
        None => return 0.0,
    };
    let number = digits.trim().parse::<f64>().unwrap_or(0.0) * factor;
    if number.is_finite() && number > 0.0 { number } else { 0.0 }
}

pub(super) fn bad_type(name: &str, expected: &str) -> Refusal {
    Refusal::new(Reason::BadType, format!("data.{name}: expected {expected}"))
}

pub(super) fn bad_value(name: &str, expected: std::fmt::Arguments<'_>) -> Refusal {
    Refusal::new(Reason::BadValue, format!("data.{name}: expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::si_number;

    #[test]
    fn si_suffixes_match_acceptance_example_15() {
        for (text, value) in [
            ("19.1M", 19_100_000.0),
            ("3.5k", 3_500.0),
            ("1.2T", 1.2e12),
            ("", 0.0),
            ("abc", 0.0),
            ("-5", 0.0),
            ("nan", 0.0),
            ("é", 0.0),
            ("7", 7.0),
        ] {
            assert!((si_number(text) - value).abs() <= value * 1e-12, "{text}");
        }
    }
}
