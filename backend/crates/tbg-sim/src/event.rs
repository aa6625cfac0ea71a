//! What the simulation plans and what it gives out.

/// One event of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimEvent {
    /// When it happened, in unix microseconds; the `ts` of the line.
    pub ts_us: i64,
    /// When the receiver gets it, in unix microseconds; never before `ts_us`.
    pub arrive_us: i64,
    /// Name of the event, as in the line.
    pub event: &'static str,
    /// Index in [`Simulator::miners`](crate::Simulator::miners) of the miner that it is about;
    /// none for events of the pool.
    pub miner: Option<u32>,
    /// The envelope A JSON: one line of ASCII without a line break.
    pub json: String,
}

/// Something that is going to happen. A miner's entries name the connection that they belong to,
/// and lapse with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Connect(u32),
    Share { miner: u32, session: u32 },
    Hashrate { miner: u32, session: u32 },
    Disconnect { miner: u32, session: u32 },
    NetworkBlock,
    ForcedBlock,
}
