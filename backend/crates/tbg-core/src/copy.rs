//! Rows by `COPY … FROM STDIN (FORMAT binary)`: the fastest way into a table that grows per share.
//!
//! `COPY` fills whole pages at once where `INSERT … SELECT unnest(…)` goes row by row, and the database
//! stores the first rows while the last are still being encoded. The format is PostgreSQL's own binary one
//! (documentation of `COPY`, "Binary Format"); every field is encoded by sqlx, as a parameter of a query
//! would be.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgCopyIn, PgTypeInfo};
use sqlx::{Encode, PgConnection, Postgres, Type};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// No flags, no header extension.
const HEADER_REST: [u8; 8] = [0; 8];
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const NULL_LENGTH: [u8; 4] = (-1_i32).to_be_bytes();
/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Rows on their way into a table.
pub struct CopyRows<'c> {
    copying: PgCopyIn<&'c mut PgConnection>,
    buffer: PgArgumentBuffer,
    columns: i16,
}

impl<'c> CopyRows<'c> {
    /// Begins `statement`, a `COPY … FROM STDIN (FORMAT binary)` of `columns` columns. Dropping it without
    /// [`finish`](Self::finish) stores nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin(
        conn: &'c mut PgConnection,
        statement: &'static str,
        columns: i16,
    ) -> Result<Self, sqlx::Error> {
        let copying = conn.copy_in_raw(statement).await?;
        let mut buffer = PgArgumentBuffer::default();
        buffer.extend_from_slice(SIGNATURE);
        buffer.extend_from_slice(&HEADER_REST);
        Ok(Self { copying, buffer, columns })
    }

    /// Begins a row; exactly as many [`field`](Self::field)s follow as there are columns.
    ///
    /// # Errors
    /// When the database does not take what was begun before.
    pub async fn row(&mut self) -> Result<&mut Self, sqlx::Error> {
        if self.buffer.len() >= CHUNK_BYTES {
            self.copying.send(self.buffer.as_slice()).await?;
            self.buffer.clear();
        }
        let columns = self.columns.to_be_bytes();
        self.buffer.extend_from_slice(&columns);
        Ok(self)
    }

    /// The next field of the row. Its type must be that of the column.
    ///
    /// # Errors
    /// When the value cannot be encoded.
    pub fn field<'q, T: Encode<'q, Postgres>>(&mut self, value: T) -> Result<&mut Self, sqlx::Error> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&NULL_LENGTH);
        let is_null = value.encode(&mut self.buffer).map_err(sqlx::Error::Encode)?;
        if let IsNull::No = is_null {
            let length = self.buffer.len() - start - NULL_LENGTH.len();
            let length = i32::try_from(length).map_err(|error| sqlx::Error::Encode(error.into()))?;
            if let Some(prefix) = self.buffer.get_mut(start..start + NULL_LENGTH.len()) {
                prefix.copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(self)
    }

    /// Sends the rest; returns the number of rows.
    ///
    /// # Errors
    /// When the database does not answer or refuses a row; then none is stored.
    pub async fn finish(mut self) -> Result<u64, sqlx::Error> {
        self.buffer.extend_from_slice(&TRAILER);
        self.copying.send(self.buffer.as_slice()).await?;
        self.copying.finish().await
    }
}

/// A text that is known to be JSON, for a `JSONB` column.
pub struct JsonText<'a>(pub &'a str);

impl Type<Postgres> for JsonText<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("jsonb")
    }
}

impl Encode<'_, Postgres> for JsonText<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        // The version of the binary form, then the text.
        buffer.push(1);
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

/// Hundredths of one, for a `NUMERIC(_, 2)` column.
pub struct Hundredths(pub u16);

impl Type<Postgres> for Hundredths {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("numeric")
    }
}

impl Encode<'_, Postgres> for Hundredths {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        // Two digits to the base of 10,000: the whole ones, then what is behind the point.
        let (digits, weight, sign, scale) = (2_u16, 0_u16, 0_u16, 2_u16);
        for part in [digits, weight, sign, scale, self.0 / 100, self.0 % 100 * 100] {
            buffer.extend_from_slice(&part.to_be_bytes());
        }
        Ok(IsNull::No)
    }
}
