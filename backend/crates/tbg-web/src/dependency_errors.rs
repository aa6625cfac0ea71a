//! Which failures of Postgres and Redis mean "come back later" (503) and which are ours (500).
//!
//! Contract: `auth-users.md` section 1.2; design: section 7.

use crate::error::ApiError;

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        if database_is_unavailable(&error) { Self::unavailable_because(error) } else { Self::internal(error) }
    }
}

impl From<redis::RedisError> for ApiError {
    fn from(error: redis::RedisError) -> Self {
        if redis_is_unavailable(&error) { Self::unavailable_because(error) } else { Self::internal(error) }
    }
}

fn database_is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        // What stands between may take a connection and close it: then PostgreSQL's first word is missing.
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(refusal) => refusal.code().is_some_and(|sqlstate| says_unavailable(&sqlstate)),
        _ => false,
    }
}

/// Connection exceptions, insufficient resources, failing disks, a server that shuts down, starts up, or is a standby
/// that was not promoted yet.
fn says_unavailable(sqlstate: &str) -> bool {
    ["08", "53", "57P0", "58", "25006"].iter().any(|class| sqlstate.starts_with(class))
}

fn redis_is_unavailable(error: &redis::RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_refusal()
        || error.is_connection_dropped()
        // A restarted Redis answers LOADING until its data is back.
        || error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::BusyLoading)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn a_database_that_is_away_is_a_503() {
        let away = [
            sqlx::Error::PoolTimedOut,
            sqlx::Error::PoolClosed,
            sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into()),
            sqlx::Error::Protocol("unexpected response from SSLRequest: 0x00".to_owned()),
            sqlx::Error::WorkerCrashed,
        ];
        for error in away {
            assert_eq!(ApiError::from(error).code(), ErrorCode::ServiceUnavailable);
        }
        let ours = ApiError::from(sqlx::Error::RowNotFound);
        assert_eq!(ours.code(), ErrorCode::Internal);
    }

    #[test]
    fn only_some_sqlstates_mean_unavailable() {
        for sqlstate in ["08006", "53300", "57P01", "57P03", "58030", "25006"] {
            assert!(says_unavailable(sqlstate), "{sqlstate}");
        }
        for sqlstate in ["23505", "42601", "57014", "40001"] {
            assert!(!says_unavailable(sqlstate), "{sqlstate}");
        }
    }

    #[test]
    fn a_redis_that_is_away_is_a_503() {
        let away = redis::RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        assert_eq!(ApiError::from(away).code(), ErrorCode::ServiceUnavailable);

        let ours = redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "not a list"));
        assert_eq!(ApiError::from(ours).code(), ErrorCode::Internal);
    }
}
