//! Servers whose certificate comes with those of its issuers: DER after DER, the server's own
//! first (Part 6, 6.2.6). The vendor's channel takes a single certificate only.
//!
//! Most of it is settled by handing on [`leaf`]. The answer that opens a channel is not: its
//! signature covers the chain in its head. So this sits below the channel, does for that one
//! message what the channel would do, with the server's key, and seals it again for the channel,
//! now with our own certificate and key for the sender's:
//!
//! ```text
//!  server ── OPN [head: chain]{body, signature of server} ──► decrypt, verify with the leaf's key
//!                                                                   │
//!  channel ◄─ OPN [head: our certificate]{body, our signature} ── sign, encrypt for ourselves
//! ```
//!
//! Nothing is believed that was not before: the channel takes any sender whose signature fits, and
//! that the server is the right one shows in that it could read what was encrypted for the leaf.

use super::keys::KeyPair;
use super::vendor::{KeySize, PublicKey, SecurityPolicy, X509};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// Of any message: its type and, after a byte, its size.
const HEAD_LEN: usize = 8;
const OPENING: &[u8] = b"OPN";
/// With the channel's id.
const OPENING_HEAD_LEN: usize = 12;
/// Ten certificates with keys of 4096 bits; what is larger is none of ours to open.
const OPENING_BYTES_MAX: usize = 32 * 1024;
/// Sequence number and request id, in front of the body.
const SEQUENCE_LEN: usize = 8;

/// The first certificate of a chain; the whole where it is no DER.
pub(super) fn leaf(chain: &[u8]) -> &[u8] {
    let length = || {
        let (&tag, rest) = chain.split_first()?;
        let (&first, rest) = rest.split_first()?;
        if tag != 0x30 {
            return None;
        }
        if first < 0x80 {
            return Some(2 + usize::from(first));
        }
        let count = usize::from(first & 0x7f);
        let bytes = rest.get(..count).filter(|_| count <= 4)?;
        let length = bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        Some(2 + count + length)
    };
    length()
        .and_then(|length| chain.get(..length))
        .unwrap_or(chain)
}

/// Reads through, but for messages that open a channel with a chain.
pub(super) struct Unchained<R> {
    inner: R,
    /// Without, nothing is encrypted and everything passes.
    keys: Option<Arc<KeyPair>>,
    /// Bytes of the message under way that pass as they come.
    passing: usize,
    /// The start of a message whose kind is not known yet, or what there is of an opening.
    held: Vec<u8>,
    /// To be handed out, from `given` on, before more is read.
    ready: Vec<u8>,
    given: usize,
}

impl<R> Unchained<R> {
    pub(super) fn new(inner: R, keys: Option<Arc<KeyPair>>) -> Self {
        Self {
            inner,
            keys,
            passing: 0,
            held: Vec::new(),
            ready: Vec::new(),
            given: 0,
        }
    }

    /// Moves what can be handed out from `held` to `ready`.
    fn sort(&mut self, keys: &KeyPair) -> Result<(), String> {
        let held = std::mem::take(&mut self.held);
        let mut rest = &held[..];
        while !rest.is_empty() {
            if self.passing == 0 {
                let Some(size) = rest.get(4..HEAD_LEN).map(number) else {
                    break;
                };
                let opens = rest.starts_with(OPENING) && size <= OPENING_BYTES_MAX;
                if opens {
                    let Some(message) = rest.get(..size) else {
                        break;
                    };
                    match unchained(message, keys)? {
                        Some(sealed) => self.ready.extend(sealed),
                        None => self.ready.extend_from_slice(message),
                    }
                    rest = &rest[size..];
                    continue;
                }
                // A message shorter than its own head is the channel's to complain about.
                self.passing = size.max(HEAD_LEN);
            }
            let (pass, after) = rest.split_at(self.passing.min(rest.len()));
            self.ready.extend_from_slice(pass);
            self.passing -= pass.len();
            rest = after;
        }
        self.held = rest.to_vec();
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Unchained<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(keys) = this.keys.clone() else {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        };
        loop {
            let waiting = &this.ready[this.given..];
            if !waiting.is_empty() {
                let count = waiting.len().min(buf.remaining());
                buf.put_slice(&waiting[..count]);
                this.given += count;
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.given = 0;
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            let fresh = buf.filled().len() - before;
            if fresh <= this.passing {
                // In the middle of a message, as nearly always; or at the end of everything.
                this.passing -= fresh;
                return Poll::Ready(Ok(()));
            }
            this.held.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
            this.sort(&keys)
                .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        }
    }
}

/// The same opening with a single certificate, ours, for its sender; none where it has one.
fn unchained(message: &[u8], keys: &KeyPair) -> Result<Option<Vec<u8>>, String> {
    let Some(opening) = Opening::parse(message) else {
        return Ok(None);
    };
    let server = leaf(opening.chain);
    let policy = SecurityPolicy::from_uri(opening.policy);
    if server.len() == opening.chain.len()
        || matches!(policy, SecurityPolicy::None | SecurityPolicy::Unknown)
    {
        return Ok(None);
    }
    let server = X509::from_der(server)
        .ok()
        .and_then(|leaf| leaf.public_key().ok())
        .ok_or("the server's certificate chain does not start with an RSA certificate")?;
    let mut body = body(policy, keys, &server, opening.clear, opening.sealed)?;

    let start = &message[..OPENING_HEAD_LEN];
    let mut head = [start, &sized(opening.policy.as_bytes())].concat();
    head.extend_from_slice(&sized(keys.certificate.as_byte_string()));
    head.extend_from_slice(&sized(keys.certificate.thumbprint().as_byte_string()));
    let ours = keys.key.to_public_key();
    pad(policy, &ours, &mut body);
    let plain_len = body.len() + ours.size();
    let size = head.len() + policy.calculate_cipher_text_size(plain_len, &ours);
    let size_on_wire = u32::try_from(size).map_err(|_| "the answer is too large")?;
    head[4..HEAD_LEN].copy_from_slice(&size_on_wire.to_le_bytes());

    let failed = |error: super::vendor::VendorError| error.to_string();
    let mut signature = vec![0; ours.size()];
    let signed = [&head[..], &body].concat();
    policy
        .asymmetric_sign(&keys.key, &signed, &mut signature)
        .map_err(failed)?;
    body.extend(signature);
    let start = head.len();
    head.resize(size, 0);
    policy
        .asymmetric_encrypt(&ours, &body, &mut head[start..])
        .map_err(failed)?;
    Ok(Some(head))
}

/// The parts of a message that opens a channel (Part 6, 6.7.2).
struct Opening<'a> {
    policy: &'a str,
    /// The sender's certificates.
    chain: &'a [u8],
    /// All that is not encrypted, those included.
    clear: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> Opening<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let (_, rest) = message.split_at_checked(OPENING_HEAD_LEN)?;
        let (policy, rest) = field(rest)?;
        let (chain, rest) = field(rest)?;
        let (_thumbprint, sealed) = field(rest)?;
        Some(Self {
            policy: std::str::from_utf8(policy).ok()?,
            chain,
            clear: &message[..message.len() - sealed.len()],
            sealed,
        })
    }
}

/// Sequence header and body, verified and without padding.
fn body(
    policy: SecurityPolicy,
    keys: &KeyPair,
    server: &PublicKey,
    head: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, String> {
    let wrong = || "the server's answer to the secure channel is not sealed as it should be";
    let mut plain = vec![0; sealed.len()];
    let length = policy
        .asymmetric_decrypt(&keys.key, sealed, &mut plain)
        .map_err(|error| error.to_string())?;
    plain.truncate(length);
    let signature_at = length.checked_sub(server.size()).ok_or_else(wrong)?;
    let signature = plain.split_off(signature_at);
    let signed = [head, &plain].concat();
    policy
        .asymmetric_verify_signature(server, &signed, &signature)
        .map_err(|_| "the server's answer is not signed with the key of its certificate")?;
    // The count of padding bytes follows them, in two bytes where the key is longer than 2048 bits.
    let count = match minimum_padding(policy, keys) {
        2 => usize::from(plain.pop().ok_or_else(wrong)?) << 8,
        _ => 0,
    };
    let count = count + usize::from(plain.pop().ok_or_else(wrong)?);
    let end = plain.len().checked_sub(count).ok_or_else(wrong)?;
    plain.truncate(end);
    if plain.len() < SEQUENCE_LEN {
        return Err(wrong().to_owned());
    }
    Ok(plain)
}

fn minimum_padding(policy: SecurityPolicy, keys: &KeyPair) -> usize {
    let ours = keys.key.to_public_key();
    policy.asymmetric_padding_info(&ours).minimum_padding
}

/// Fills up to whole blocks, a signature of the same key included.
fn pad(policy: SecurityPolicy, key: &PublicKey, body: &mut Vec<u8>) {
    let info = policy.asymmetric_padding_info(key);
    let plain_len = body.len() + info.minimum_padding + key.size();
    let count = plain_len.next_multiple_of(info.block_size) - plain_len;
    let [low, high, ..] = count.to_le_bytes();
    body.resize(body.len() + count + 1, low);
    if info.minimum_padding == 2 {
        body.push(high);
    }
}

/// A string or byte string (Part 6, 5.2.2); an absent one is empty.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(4)?;
    let length = match number(length) {
        0xffff_ffff => 0,
        length => length,
    };
    rest.split_at_checked(length)
}

fn sized(field: impl AsRef<[u8]>) -> Vec<u8> {
    let field = field.as_ref();
    let length = u32::try_from(field.len()).expect("a part of a message of 32 KiB");
    [&length.to_le_bytes(), field].concat()
}

/// Four bytes, the lowest first.
fn number(bytes: &[u8]) -> usize {
    let bytes = bytes.try_into().expect("four bytes");
    u32::from_le_bytes(bytes) as usize
}

#[cfg(test)]
mod tests {
    use super::super::vendor::{PrivateKey, X509Data};
    use super::*;
    use tokio::io::AsyncReadExt;

    const POLICIES: [SecurityPolicy; 3] = [
        SecurityPolicy::Basic256Sha256,
        SecurityPolicy::Aes256Sha256RsaPss,
        SecurityPolicy::Basic128Rsa15,
    ];

    fn pair(bits: u32) -> KeyPair {
        let data = X509Data::sample_cert();
        let key = PrivateKey::new(bits).unwrap();
        let certificate = X509::from_pkey(&key, &data).unwrap();
        KeyPair { certificate, key }
    }

    /// As a server seals its answer for `client`.
    fn sealed(policy: SecurityPolicy, server: &KeyPair, client: &KeyPair, chain: &[u8]) -> Vec<u8> {
        let mut body = b"seq+requand the answer itself".to_vec();
        let theirs = client.key.to_public_key();
        let info = policy.asymmetric_padding_info(&theirs);
        let plain_len = body.len() + info.minimum_padding + server.key.size();
        let count = plain_len.next_multiple_of(info.block_size) - plain_len;
        body.resize(body.len() + count + 1, count as u8);
        let mut head = b"OPNF\0\0\0\0\x07\0\0\0".to_vec();
        head.extend(sized(policy.to_uri()));
        head.extend(sized(chain));
        head.extend(sized(client.certificate.thumbprint().as_byte_string()));
        let size = policy.calculate_cipher_text_size(body.len() + server.key.size(), &theirs);
        let size = head.len() + size;
        head[4..8].copy_from_slice(&(size as u32).to_le_bytes());
        let mut signature = vec![0; server.key.size()];
        let signed = [&head[..], &body].concat();
        policy
            .asymmetric_sign(&server.key, &signed, &mut signature)
            .unwrap();
        let start = head.len();
        head.resize(size, 0);
        let plain = [body, signature].concat();
        policy
            .asymmetric_encrypt(&theirs, &plain, &mut head[start..])
            .unwrap();
        head
    }

    #[test]
    fn of_a_chain_the_first_is_taken() {
        let short = [0x30, 2, 1, 2];
        let long = [&[0x30, 0x81, 200][..], &[7; 200]].concat();
        for first in [&short[..], &long] {
            assert_eq!(leaf(first), first);
            assert_eq!(leaf(&[first, &short].concat()), first);
        }
        for broken in [
            &b""[..],
            b"\x30",
            b"no certificate",
            &long[..9],
            b"\x30\xff1",
        ] {
            assert_eq!(leaf(broken), broken);
        }
    }

    #[test]
    fn the_answer_to_a_channel_is_sealed_anew_with_what_was_in_it() {
        // A longer signature than ours.
        let (server, client) = (pair(3072), pair(2048));
        let own = server.certificate.to_der().unwrap();
        let chain = [&own[..], &client.certificate.to_der().unwrap()].concat();
        for policy in POLICIES {
            let single = sealed(policy, &server, &client, &own);
            assert_eq!(unchained(&single, &client), Ok(None));
            let message = sealed(policy, &server, &client, &chain);
            let anew = unchained(&message, &client).unwrap().unwrap();
            assert_eq!(number(&anew[4..8]), anew.len());
            let parts = Opening::parse(&anew).unwrap();
            assert_eq!(parts.policy, policy.to_uri());
            assert_eq!(parts.chain, client.certificate.to_der().unwrap());
            let ours = client.key.to_public_key();
            let plain = body(policy, &client, &ours, parts.clear, parts.sealed).unwrap();
            assert_eq!(plain, b"seq+requand the answer itself");

            // Signed by another than the one whose certificate comes first.
            let forged = sealed(policy, &client, &client, &chain);
            assert!(unchained(&forged, &client).is_err());
        }
    }

    #[tokio::test]
    async fn whatever_else_comes_passes_in_any_pieces() {
        let (server, client) = (pair(2048), pair(2048));
        let own = server.certificate.to_der().unwrap();
        let chain = [&own[..], &own].concat();
        let message = |kind: &[u8], len: usize| {
            let size = (len as u32).to_le_bytes();
            [kind, b"F", &size, &vec![b'x'; len - 8]].concat()
        };
        let policy = SecurityPolicy::Basic256Sha256;
        let opening = sealed(policy, &server, &client, &chain);
        let before = [message(b"ACK", 28), message(b"MSG", 9)].concat();
        let after = [message(b"MSG", 3_000), message(b"ERR", 16)].concat();
        let sent = [&before[..], &opening, &after].concat();
        for piece in [1, 7, 1_000, sent.len()] {
            let reader = pieces(&sent, piece);
            let mut unchained = Unchained::new(reader, Some(Arc::new(client.clone())));
            let mut got = Vec::new();
            unchained.read_to_end(&mut got).await.unwrap();
            assert!(got.starts_with(&before) && got.ends_with(&after));
            let anew = &got[before.len()..got.len() - after.len()];
            assert_eq!(number(&anew[4..8]), anew.len());
            assert_ne!(anew, opening);
        }
    }

    /// Hands out `piece` bytes at a time.
    fn pieces(bytes: &[u8], piece: usize) -> impl AsyncRead + Unpin + use<> {
        struct Pieces(Vec<u8>, usize);
        impl AsyncRead for Pieces {
            fn poll_read(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let count = self.1.min(self.0.len()).min(buf.remaining());
                let fresh: Vec<u8> = self.0.drain(..count).collect();
                buf.put_slice(&fresh);
                Poll::Ready(Ok(()))
            }
        }
        Pieces(bytes.to_vec(), piece)
    }
}
