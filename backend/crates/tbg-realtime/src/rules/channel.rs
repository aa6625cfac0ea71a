//! The channels (contract `realtime.md` §4) and which event travels on which (§5).

use tbg_core::live::LiveEvent;

macro_rules! channels {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal;)+) => {
        /// What a socket subscribes to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Channel {
            $($(#[doc = $doc])* $variant,)+
        }

        impl Channel {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on the wire.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The channel of a name.
            #[must_use]
            pub fn of_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

channels! {
    /// The user's own shares, workers and rates.
    Mining = "mining";
    /// What everybody hears of, and the user's numbers.
    Dashboard = "dashboard";
    /// The user's own awards.
    Gamification = "gamification";
    /// Leaderboards, matches, leagues.
    Competition = "competition";
    /// The user's notifications; every socket gets them.
    Notifications = "notifications";
}

impl Channel {
    /// Where an event is delivered. Exhaustive: an event that may be published has a place.
    #[must_use]
    pub fn of(event: LiveEvent) -> Self {
        match event {
            LiveEvent::ShareSubmitted
            | LiveEvent::WorkerStatus
            | LiveEvent::HashrateUpdate
            | LiveEvent::BestDiff => Self::Mining,
            LiveEvent::BlockFound
            | LiveEvent::FeedItem
            | LiveEvent::StatsUpdate
            | LiveEvent::EventReminder
            | LiveEvent::LotteryDrawn => Self::Dashboard,
            LiveEvent::BadgeEarned | LiveEvent::XpGained | LiveEvent::LevelUp | LiveEvent::StreakUpdate => {
                Self::Gamification
            }
            LiveEvent::LeaderboardUpdate
            | LiveEvent::RankChanged
            | LiveEvent::MatchUpdate
            | LiveEvent::LeagueUpdate => Self::Competition,
            LiveEvent::Notification | LiveEvent::Toast => Self::Notifications,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The channels of one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscriptions(u8);

impl Subscriptions {
    /// From and to the byte that a connection keeps.
    pub(crate) fn of_byte(byte: u8) -> Self {
        Self(byte)
    }

    pub(crate) fn byte(self) -> u8 {
        self.0
    }

    /// Whether it is among them.
    #[must_use]
    pub fn has(self, channel: Channel) -> bool {
        self.0 & channel.bit() != 0
    }

    /// Whether what travels on the channel is delivered: notifications always are.
    #[must_use]
    pub fn receives(self, channel: Channel) -> bool {
        channel == Channel::Notifications || self.has(channel)
    }

    /// With `channels`, or without them.
    #[must_use]
    pub fn changed(self, channels: &[Channel], subscribed: bool) -> Self {
        let bits = channels.iter().fold(0, |bits, channel| bits | channel.bit());
        Self(if subscribed { self.0 | bits } else { self.0 & !bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_channels_are_one_to_one() {
        for channel in Channel::ALL {
            assert_eq!(Channel::of_name(channel.name()), Some(*channel));
        }
        assert_eq!(Channel::of_name("Mining"), None);
    }

    #[test]
    fn subscribing_twice_is_subscribing_once() {
        let both = [Channel::Mining, Channel::Dashboard];
        let once = Subscriptions::default().changed(&both, true);
        assert_eq!(once.changed(&both, true), once);
        assert!(once.has(Channel::Mining) && !once.has(Channel::Competition));
        assert_eq!(once.changed(&both, false), Subscriptions::default());
        assert!(Subscriptions::default().receives(Channel::Notifications));
        assert!(!Subscriptions::default().has(Channel::Notifications));
    }
}
