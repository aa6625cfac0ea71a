//! The badges: rows of `badge_definitions`, seeded by migrations (contract `gamification.md`, catalogue). A new
//! badge is a row; only an event that nothing reports yet needs code.

/// What a badge is earned by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trigger {
    /// So many accepted shares.
    ShareCount(i64),
    /// An achieved difficulty.
    BestDiff(f64),
    /// A longest streak of so many weeks.
    Streak(i32),
    /// A block.
    BlockFound,
    /// Something that another domain reports; found by its slug.
    Event,
}

/// A badge that can be earned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Badge {
    pub id: i32,
    pub slug: String,
    pub name: String,
    pub description: String,
    pub rarity: String,
    pub xp_reward: i32,
    pub trigger: Trigger,
    pub repeatable: bool,
}

/// All badges that can be earned, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalogue {
    badges: Vec<Badge>,
}

/// What has just changed about a player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// A share was counted.
    Shares,
    /// A difficulty was reached.
    Best,
    /// The streak may have grown.
    Streak,
    /// A block was found.
    Blocks,
}

impl Catalogue {
    /// The slugs of all badges.
    pub(crate) fn slugs(&self) -> impl Iterator<Item = &str> {
        self.badges.iter().map(|badge| badge.slug.as_str())
    }

    pub(crate) fn new(mut badges: Vec<Badge>) -> Self {
        badges.sort_by_key(|badge| badge.id);
        Self { badges }
    }

    pub(crate) fn by_slug(&self, slug: &str) -> Option<&Badge> {
        self.badges.iter().find(|badge| badge.slug == slug)
    }

    /// Badges of mining that `changed` can earn, in the order of their ids.
    pub(crate) fn of(&self, changed: &[Changed]) -> impl Iterator<Item = &Badge> {
        self.badges.iter().filter(move |badge| {
            let needs = match badge.trigger {
                Trigger::ShareCount(_) => Changed::Shares,
                Trigger::BestDiff(_) => Changed::Best,
                Trigger::Streak(_) => Changed::Streak,
                Trigger::BlockFound => Changed::Blocks,
                Trigger::Event => return false,
            };
            changed.contains(&needs)
        })
    }
}
