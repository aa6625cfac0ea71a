//! Numbers as people read them.

/// A whole number with commas between thousands.
#[must_use]
pub fn with_commas(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!(with_commas(999), "999");
        assert_eq!(with_commas(879_234), "879,234");
        assert_eq!(with_commas(4_231_847_293), "4,231,847,293");
    }
}
