//! Where users stand, of many at once: every dashboard asks for it, and it is never kept.

use sqlx::PgPool;
use tbg_core::UserId;
use tbg_core::period::IsoWeek;
use tbg_web::{Gather, in_order};

use crate::store::{self, StateRow};

/// Where states are asked for: that of a user who exists, in a week.
pub(crate) type States = Gather<(UserId, IsoWeek), Option<StateRow>>;

/// By one statement.
pub(crate) fn gather(pool: PgPool) -> States {
    Gather::new(move |asked: Vec<(UserId, IsoWeek)>| {
        let pool = pool.clone();
        async move {
            let (users, weeks): (Vec<_>, Vec<_>) =
                asked.iter().map(|(user, week)| (user.0, week.to_string())).unzip();
            let rows = store::states(&pool, &users, &weeks).await?;
            Ok(in_order(asked.len(), rows, |row| row.place))
        }
    })
}
