//! What is pure about sockets: the channels, what a client may say, how a published payload becomes frames,
//! and what a queue drops.

mod channel;
mod inbound;
mod map;
mod queue;

pub use channel::{Channel, Subscriptions};
pub(crate) use inbound::{Inbound, Since, error, parse, rate_limited};
pub(crate) use map::{Audience, Delivery, Owner, RENDERED_MAX_BYTES, deliver, deliver_kept};
pub(crate) use queue::{Entry, Queue, Weight};
