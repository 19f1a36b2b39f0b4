//! The body of an answer, in chunks or until the connection ends: its bytes without the sizes between them.

/// Where in a body a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// Everything up to the end of the connection.
    Plain,
    /// Within the size of a chunk.
    Size(u32),
    /// After a size, before the end of its line.
    SizeEnd(u32),
    /// Within a chunk, with so much left.
    Data(u32),
    /// After a chunk, before the end of its line.
    DataEnd,
    /// Nothing comes any more.
    Ended,
}

/// The chunks are not as they must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

impl Body {
    /// Takes bytes off the front of `input` until there is data; `None` when all have been taken.
    pub(super) fn data<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Broken> {
        while let Some((&byte, rest)) = input.split_first() {
            match *self {
                Self::Plain => return Ok(Some(std::mem::take(input))),
                Self::Data(left) => {
                    let (data, rest) = input.split_at(input.len().min(left as usize));
                    *input = rest;
                    // It is no more than `left`.
                    let left = left - data.len() as u32;
                    *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
                    return Ok(Some(data));
                }
                Self::Ended => {
                    *input = &[];
                    return Ok(None);
                }
                _ => {}
            }
            *input = rest;
            *self = match (*self, byte) {
                (Self::Size(size), byte) if byte.is_ascii_hexdigit() => {
                    let digit = char::from(byte).to_digit(16).unwrap_or_default();
                    Self::Size(size.checked_mul(16).and_then(|size| size.checked_add(digit)).ok_or(Broken)?)
                }
                (Self::Size(0) | Self::SizeEnd(0), b'\n') => Self::Ended,
                (Self::Size(size) | Self::SizeEnd(size), b'\n') => Self::Data(size),
                (Self::Size(size) | Self::SizeEnd(size), _) => Self::SizeEnd(size),
                (Self::DataEnd, b'\n') => Self::Size(0),
                (Self::DataEnd, b'\r') => Self::DataEnd,
                _ => return Err(Broken),
            };
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chunks_are_joined_in_whatever_pieces_they_come(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cut in 1usize..20,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let (mut body, mut joined) = (Body::Size(0), Vec::new());
            for mut piece in wire.chunks(cut) {
                while let Some(data) = body.data(&mut piece).expect("good chunks") {
                    joined.extend_from_slice(data);
                }
            }
            prop_assert_eq!(body, Body::Ended);
            prop_assert_eq!(joined, chunks.concat());
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let mut input: &[u8] = b"3\r\nabcX";
        let mut body = Body::Size(0);
        assert_eq!(body.data(&mut input), Ok(Some(&b"abc"[..])));
        assert_eq!(body.data(&mut input), Err(Broken));
    }
}
