//! Rules of the domain. Pure.

pub(crate) mod seal;
