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

#[cfg(test)]
impl Catalogue {
    /// The badges of mining, as the migration seeds them.
    pub(crate) fn of_mining() -> Self {
        let badge = |id, slug: &str, xp_reward, trigger| Badge {
            id,
            slug: slug.to_owned(),
            name: slug.to_owned(),
            description: String::new(),
            rarity: "common".to_owned(),
            xp_reward,
            trigger,
            repeatable: id == 8,
        };
        Self::new(vec![
            badge(1, "first_share", 50, Trigger::ShareCount(1)),
            badge(2, "shares_1k", 100, Trigger::ShareCount(1_000)),
            badge(3, "shares_1m", 200, Trigger::ShareCount(1_000_000)),
            badge(4, "block_finder", 500, Trigger::BlockFound),
            badge(5, "diff_1e6", 50, Trigger::BestDiff(1e6)),
            badge(6, "diff_1e9", 100, Trigger::BestDiff(1e9)),
            badge(7, "diff_1e12", 200, Trigger::BestDiff(1e12)),
            badge(8, "weekly_diff_champion", 300, Trigger::Event),
            badge(9, "streak_4", 100, Trigger::Streak(4)),
            badge(10, "streak_12", 200, Trigger::Streak(12)),
            badge(11, "streak_52", 500, Trigger::Streak(52)),
        ])
    }
}
