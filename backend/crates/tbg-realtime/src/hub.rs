//! The sockets of this process: who has how many, and what is delivered to whom.
//!
//! Invariants: a socket is counted from its admission to its last breath, exactly once, whatever ends it
//! ([`Seat`], [`Registration`]); delivering never waits for a socket.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde_json::{Map, Value};
use tbg_core::UserId;
use uuid::Uuid;

use crate::connection::{Closing, Connection};
use crate::metrics;
use crate::rules::{Audience, Channel, Delivery, Entry, Owner, Weight};
use crate::store::Store;

/// All sockets of this process.
#[derive(Default)]
pub(crate) struct Hub {
    sockets: RwLock<Sockets>,
    seats: Mutex<Seats>,
    /// Users whose numbers may have changed since they were last told.
    touched: Mutex<HashSet<UserId>>,
}

#[derive(Default)]
struct Sockets {
    users: HashMap<UserId, Vec<Arc<Connection>>>,
    addresses: HashMap<String, UserId>,
    count: usize,
}

#[derive(Default)]
struct Seats {
    total: usize,
    users: HashMap<UserId, usize>,
    is_draining: bool,
}

/// The room for one socket, given back when dropped.
pub(crate) struct Seat {
    hub: Arc<Hub>,
    user: UserId,
    ledger: Option<(Store, Uuid)>,
}

impl Seat {
    /// The same, with an entry in the ledger of all replicas to be taken out with it.
    pub(crate) fn in_ledger(mut self, store: Store, id: Uuid) -> Self {
        self.ledger = Some((store, id));
        self
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let (Some((store, id)), Ok(runtime)) = (self.ledger.take(), tokio::runtime::Handle::try_current())
        {
            let user = self.user;
            // Where that fails, the entry is forgotten for its age.
            runtime.spawn(async move { store.leave(user, id).await });
        }
        let mut seats = lock(&self.hub.seats);
        seats.total = seats.total.saturating_sub(1);
        if let Some(count) = seats.users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                seats.users.remove(&self.user);
            }
        }
    }
}

/// A socket that gets what is delivered, until dropped.
pub(crate) struct Registration {
    hub: Arc<Hub>,
    connection: Arc<Connection>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.hub.remove(&self.connection);
    }
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSeat {
    Full,
    TooManyOfUser,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Whether another socket fits at all.
    pub(crate) fn has_room(&self, max: usize) -> bool {
        let seats = lock(&self.seats);
        !seats.is_draining && seats.total < max
    }

    /// A seat for a socket of `user`.
    pub(crate) fn take_seat(
        self: &Arc<Self>,
        user: UserId,
        max: usize,
        max_of_user: usize,
    ) -> Result<Seat, NoSeat> {
        let mut seats = lock(&self.seats);
        if seats.is_draining || seats.total >= max {
            return Err(NoSeat::Full);
        }
        let count = seats.users.entry(user).or_default();
        if *count >= max_of_user {
            return Err(NoSeat::TooManyOfUser);
        }
        *count += 1;
        seats.total += 1;
        Ok(Seat { hub: Arc::clone(self), user, ledger: None })
    }

    /// From now on nobody is admitted.
    pub(crate) fn drain(&self) {
        lock(&self.seats).is_draining = true;
    }

    /// Delivers to `connection` from now on.
    pub(crate) fn register(self: &Arc<Self>, connection: Arc<Connection>) -> Registration {
        let mut sockets = self.write();
        if let Some(address) = &connection.address {
            sockets.addresses.insert(address.clone(), connection.user);
        }
        sockets.users.entry(connection.user).or_default().push(Arc::clone(&connection));
        sockets.count += 1;
        metrics::active(sockets.count);
        drop(sockets);
        Registration { hub: Arc::clone(self), connection }
    }

    fn remove(&self, connection: &Connection) {
        let mut sockets = self.write();
        let Some(of_user) = sockets.users.get_mut(&connection.user) else { return };
        let before = of_user.len();
        of_user.retain(|other| other.id != connection.id);
        let gone = before - of_user.len();
        let is_last_of_address = !of_user.iter().any(|other| other.address == connection.address);
        if of_user.is_empty() {
            sockets.users.remove(&connection.user);
        }
        if let Some(address) = connection.address.as_ref().filter(|_| is_last_of_address) {
            sockets.addresses.remove(address);
        }
        sockets.count -= gone;
        metrics::active(sockets.count);
    }

    /// Hands a delivery to the queues of those whom it concerns.
    pub(crate) fn deliver(&self, delivery: Delivery) {
        let Delivery { channel, event, audience, cursor } = delivery;
        let entry = |text| Entry { text, weight: Weight::of(event), event, is_message: true };
        let sockets = self.read();
        match audience {
            Audience::Owner(owner, frame) => {
                let Some(user) = sockets.user_of(&owner) else { return };
                let entry = entry(frame);
                for connection in sockets.of(user) {
                    connection.deliver(channel, &entry, cursor);
                }
                if channel != Channel::Dashboard
                    && sockets.of(user).any(|one| one.receives(Channel::Dashboard))
                {
                    lock(&self.touched).insert(user);
                }
            }
            Audience::Everyone { frame, own } => {
                let entry_of_all = entry(frame);
                let own = own.and_then(|(owner, frame)| Some((sockets.user_of(&owner)?, entry(frame))));
                for (user, connections) in &sockets.users {
                    let own = own.as_ref().filter(|(owner, _)| owner == user);
                    let entry = own.map_or(&entry_of_all, |(_, entry)| entry);
                    for connection in connections {
                        connection.deliver(channel, entry, cursor.filter(|_| own.is_some()));
                    }
                }
            }
        }
    }

    /// Gives one user's subscribers a frame.
    pub(crate) fn deliver_to(&self, user: UserId, channel: Channel, entry: &Entry) {
        for connection in self.read().of(user) {
            connection.deliver(channel, entry, None);
        }
    }

    /// Ends a session's sockets; all of the user's without a session.
    pub(crate) fn revoke(&self, user: UserId, sid: Option<Uuid>) {
        for connection in self.read().of(user) {
            if sid.is_none_or(|sid| sid == connection.claims.sid) {
                connection.close(Closing::REVOKED);
            }
        }
    }

    /// All sockets at this moment.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        self.read().users.values().flatten().cloned().collect()
    }

    /// How many sockets are open.
    pub(crate) fn count(&self) -> usize {
        self.read().count
    }

    /// Users whose numbers may have changed and who look at them here.
    pub(crate) fn take_touched(&self) -> HashSet<UserId> {
        std::mem::take(&mut *lock(&self.touched))
    }

    /// Sockets, users, and subscribers per channel that has any.
    pub(crate) fn statistics(&self) -> (usize, usize, Map<String, Value>) {
        let sockets = self.read();
        let subscribers = |channel: Channel| {
            sockets.users.values().flatten().filter(|connection| connection.has(channel)).count()
        };
        let channels = Channel::ALL
            .iter()
            .map(|channel| (channel.name().to_owned(), subscribers(*channel)))
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name, Value::from(count)))
            .collect();
        (sockets.count, sockets.users.len(), channels)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Sockets> {
        self.sockets.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Sockets> {
        self.sockets.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sockets {
    fn of(&self, user: UserId) -> impl Iterator<Item = &Arc<Connection>> {
        self.users.get(&user).into_iter().flatten()
    }

    fn user_of(&self, owner: &Owner) -> Option<UserId> {
        match owner {
            Owner::User(user) => Some(*user),
            Owner::Address(address) => self.addresses.get(address).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_and_come_back() {
        let hub = Arc::new(Hub::default());
        let take = |user| hub.take_seat(UserId(user), 3, 2);
        let (a, _b) = (take(1).ok().unwrap(), take(1).ok().unwrap());
        assert_eq!(take(1).err(), Some(NoSeat::TooManyOfUser));
        let _c = take(2).ok().unwrap();
        assert_eq!(take(3).err(), Some(NoSeat::Full));
        drop(a);
        assert!(take(1).is_ok());
        hub.drain();
        assert_eq!(take(1).err(), Some(NoSeat::Full));
        assert!(!hub.has_room(100));
    }
}
