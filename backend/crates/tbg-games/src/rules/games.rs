//! The four games and their names (contract `games.md` §2.1).

/// A game.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Game {
    /// The Hammer.
    Hammer,
    /// Horse Race.
    HorseRace,
    /// Slot Machine.
    SlotMachine,
    /// Scratch Card.
    ScratchCard,
}

impl Game {
    /// All of them, in the contract's order.
    pub const ALL: [Self; 4] = [Self::Hammer, Self::HorseRace, Self::SlotMachine, Self::ScratchCard];

    /// As it is stored.
    #[must_use]
    pub fn stored(self) -> &'static str {
        match self {
            Self::Hammer => "hammer",
            Self::HorseRace => "horse_race",
            Self::SlotMachine => "slot_machine",
            Self::ScratchCard => "scratch_card",
        }
    }

    /// As the dashboard calls it.
    #[must_use]
    pub fn dashboard(self) -> &'static str {
        match self {
            Self::Hammer => "hammer",
            Self::HorseRace => "horse-race",
            Self::SlotMachine => "slots",
            Self::ScratchCard => "scratch",
        }
    }

    /// The game of any of its names.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "hammer" => Some(Self::Hammer),
            "horse_race" | "horse-race" => Some(Self::HorseRace),
            "slot_machine" | "slots" | "slot-machine" => Some(Self::SlotMachine),
            "scratch_card" | "scratch" | "scratch-card" => Some(Self::ScratchCard),
            _ => None,
        }
    }
}
