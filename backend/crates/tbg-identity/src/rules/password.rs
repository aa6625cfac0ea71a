//! What a password must be (contract §4.3).

const MIN_CHARS: usize = 8;

/// Whether a password (at most 128 characters, checked before) meets the policy: at least 8 characters,
/// one upper-case letter, one lower-case letter, one digit.
pub(crate) fn is_strong(password: &str) -> bool {
    password.chars().count() >= MIN_CHARS
        && password.chars().any(char::is_uppercase)
        && password.chars().any(char::is_lowercase)
        && password.chars().any(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acceptance example 11.
    #[test]
    fn the_policy_wants_length_both_cases_and_a_digit() {
        assert!(is_strong("Abcdefg1"));
        for weak in ["abcdefg1", "ABCDEFG1", "Abcdefgh", "Abc1", "        ", ""] {
            assert!(!is_strong(weak), "{weak}");
        }
    }
}
