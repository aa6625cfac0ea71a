//! Words that nobody may use as a name or show to others.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};

/// Names that would pass for the operator's, compared without spaces, dots, dashes and underscores.
const RESERVED: [&str; 6] = ["admin", "administrator", "moderator", "support", "system", "thebitcoingame"];
/// Refused anywhere in a public text, separators removed.
const DENIED_PARTS: [&str; 7] = ["fuck", "nigger", "faggot", "hitler", "childporn", "pedophil", "paedophil"];
/// Refused as a whole word only: parts of harmless words.
const DENIED_WORDS: [&str; 4] = ["cunt", "nazi", "rape", "rapist"];

/// Whether a name, in lower case, would pass for the operator's.
pub(super) fn is_reserved(lower: &str) -> bool {
    RESERVED.contains(&squeeze(lower).as_str())
}

/// Whether a public text holds a word that nobody may show to others.
pub(crate) fn is_denied(text: &str) -> bool {
    let lower = text.to_lowercase();
    let squeezed = squeeze(&lower);
    DENIED_PARTS.iter().any(|part| squeezed.contains(part))
        || lower.split(|c: char| !is_letter_or_number(c)).any(|word| DENIED_WORDS.contains(&word))
}

/// Without the spaces and signs behind which a word could hide.
fn squeeze(text: &str) -> String {
    text.chars().filter(|c| is_letter_or_number(*c)).collect()
}

/// `\p{L}` or `\p{N}`. The standard library's `is_alphanumeric` also takes vowel signs and other marks.
pub(super) fn is_letter_or_number(c: char) -> bool {
    matches!(c.general_category_group(), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number)
}
