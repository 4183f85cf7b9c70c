//! Rules as messages of nfnetlink: one batch, which the kernel takes as a whole or not at all. Pure.
//!
//! Sources: `linux/netfilter/nfnetlink.h` and `linux/netfilter/nf_tables.h`, and what nft(8) sends for the same rules
//! (`nft --debug=netlink`). Numbers of messages and attributes are in network byte order.

use super::rules::{CHAIN, Redirect, Rules, TABLE};

/// Lengths of messages and attributes are padded to this.
const ALIGNMENT: usize = 4;

/// Of a message: length, type, flags, sequence number, port.
pub(super) const HEADER_BYTES: usize = 16;

/// An attribute that holds attributes.
const NESTED: u16 = libc::NLA_F_NESTED as u16;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

/// The register that each rule works with: 16 bytes.
const REGISTER: u32 = 1;

/// `iifname` is compared as a whole, zeroes behind the name included.
const INTERFACE_NAME_BYTES: usize = 16;

/// What a message of a batch is about, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Batch,
    Table,
    Chain,
    Rule(Redirect),
}

/// A batch: its bytes, and what the message of each sequence number is about.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) parts: Vec<Part>,
}

/// Our table with these rules, in the place of what it was.
pub(super) fn replace(rules: &Rules) -> Batch {
    let mut batch = Batch::begin();
    // Deleting takes a table that is there.
    batch.table(NEW_TABLE, false);
    batch.table(DELETE_TABLE, false);
    batch.table(NEW_TABLE, false);
    batch.chain();
    for (index, redirect) in rules.redirects().iter().enumerate() {
        let is_last = index + 1 == rules.redirects().len();
        batch.rule(*redirect, is_last);
    }
    batch.end()
}

/// No table of ours, whether or not there was one.
pub(super) fn remove() -> Batch {
    let mut batch = Batch::begin();
    batch.table(NEW_TABLE, false);
    batch.table(DELETE_TABLE, true);
    batch.end()
}

impl Batch {
    fn begin() -> Self {
        let mut batch = Batch::default();
        batch.mark(libc::NFNL_MSG_BATCH_BEGIN as u16);
        batch
    }

    fn end(mut self) -> Self {
        self.mark(libc::NFNL_MSG_BATCH_END as u16);
        self
    }

    fn mark(&mut self, kind: u16) {
        self.message(
            Part::Batch,
            kind,
            0,
            libc::AF_UNSPEC as u8,
            libc::NFNL_SUBSYS_NFTABLES as u16,
            |_| {},
        );
    }

    fn table(&mut self, message: u16, answers: bool) {
        self.about_tables(Part::Table, message, answers, |to| {
            to.text(1, TABLE);
        });
    }

    fn chain(&mut self) {
        self.about_tables(Part::Chain, NEW_CHAIN, false, |to| {
            to.text(1, TABLE);
            to.text(3, CHAIN);
            to.nest(4, |hook| {
                hook.number(1, libc::NF_INET_PRE_ROUTING as u32);
                hook.number(2, libc::NF_IP_PRI_NAT_DST as u32);
            });
            to.number(5, libc::NF_ACCEPT as u32);
            to.text(7, "nat");
        });
    }

    fn rule(&mut self, redirect: Redirect, answers: bool) {
        self.about_tables(Part::Rule(redirect), NEW_RULE, answers, |to| {
            to.text(1, TABLE);
            to.text(2, CHAIN);
            to.nest(4, |expressions| {
                // iifname != "lo": what the pod sends to itself, our own connections among it, is left alone.
                expressions.meta(libc::NFT_META_IIFNAME as u32);
                let mut lo = [0; INTERFACE_NAME_BYTES];
                lo[..2].copy_from_slice(b"lo");
                expressions.compare(libc::NFT_CMP_NEQ as u32, &lo);
                // fib daddr type local: what the pod passes on to others is left alone.
                expressions.expression("fib", |fib| {
                    const ADDRESS_TYPE: u32 = 3;
                    const OF_DESTINATION: u32 = 2;
                    fib.number(1, REGISTER);
                    fib.number(2, ADDRESS_TYPE);
                    fib.number(3, OF_DESTINATION);
                });
                // The kernel's own number: in its byte order.
                let local = u32::from(libc::RTN_LOCAL);
                expressions.compare(libc::NFT_CMP_EQ as u32, &local.to_ne_bytes());
                // tcp dport
                expressions.meta(libc::NFT_META_L4PROTO as u32);
                expressions.compare(libc::NFT_CMP_EQ as u32, &[libc::IPPROTO_TCP as u8]);
                expressions.expression("payload", |payload| {
                    payload.number(1, REGISTER);
                    payload.number(2, libc::NFT_PAYLOAD_TRANSPORT_HEADER as u32);
                    payload.number(3, 2);
                    payload.number(4, 2);
                });
                expressions.compare(libc::NFT_CMP_EQ as u32, &redirect.from.to_be_bytes());
                expressions.expression("counter", |counter| {
                    counter.bytes(1, &0_u64.to_be_bytes());
                    counter.bytes(2, &0_u64.to_be_bytes());
                });
                // redirect to
                expressions.expression("immediate", |immediate| {
                    immediate.number(1, REGISTER);
                    immediate.nest(2, |data| data.bytes(1, &redirect.to.to_be_bytes()));
                });
                expressions.expression("redir", |redir| {
                    const PORT_IS_GIVEN: u32 = 2;
                    redir.number(1, REGISTER);
                    redir.number(3, PORT_IS_GIVEN);
                });
            });
        });
    }

    fn about_tables(
        &mut self,
        part: Part,
        message: u16,
        answers: bool,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let kind = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | message;
        let creates = matches!(message, NEW_TABLE | NEW_CHAIN | NEW_RULE);
        let flags = [
            (creates, libc::NLM_F_CREATE),
            (message == NEW_RULE, libc::NLM_F_APPEND),
            // An error is told of in any case. A success once, so that the answers of many fit into the socket.
            (answers, libc::NLM_F_ACK),
        ];
        let flags = flags
            .into_iter()
            .filter(|(is_set, _)| *is_set)
            .fold(0, |all, (_, flag)| all | flag as u16);
        self.message(part, kind, flags, libc::NFPROTO_INET as u8, 0, attributes);
    }

    fn message(
        &mut self,
        part: Part,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let at = self.bytes.len();
        let sequence = self.parts.len() as u32;
        self.parts.push(part);
        let bytes = &mut self.bytes;
        bytes.extend([0; 4]);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend([family, libc::NFNETLINK_V0 as u8]);
        bytes.extend(resource.to_be_bytes());
        attributes(&mut Attributes(bytes));
        let length = (bytes.len() - at) as u32;
        bytes[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Attributes at the end of a message that is being written.
struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.within(kind, |to| to.0.extend(value));
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn nest(&mut self, kind: u16, attributes: impl FnOnce(&mut Attributes<'_>)) {
        self.within(kind | NESTED, attributes);
    }

    fn within(&mut self, kind: u16, value: impl FnOnce(&mut Attributes<'_>)) {
        let at = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        value(&mut Attributes(self.0));
        let length = (self.0.len() - at) as u16;
        self.0[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
        self.nest(1, |expression| {
            expression.text(1, name);
            expression.nest(2, data);
        });
    }

    fn meta(&mut self, key: u32) {
        self.expression("meta", |meta| {
            meta.number(1, REGISTER);
            meta.number(2, key);
        });
    }

    fn compare(&mut self, how: u32, with: &[u8]) {
        self.expression("cmp", |cmp| {
            cmp.number(1, REGISTER);
            cmp.number(2, how);
            cmp.nest(3, |data| data.bytes(1, with));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the messages of a batch, which must fill it.
    fn lengths(batch: &Batch) -> Vec<usize> {
        let (mut rest, mut lengths) = (batch.bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            assert_eq!(length % ALIGNMENT, 0);
            let sequence = u32::from_ne_bytes(rest[8..12].try_into().unwrap());
            assert_eq!(sequence as usize, lengths.len());
            lengths.push(length);
            rest = &rest[length..];
        }
        lengths
    }

    fn rules(count: u16) -> Rules {
        let redirects = (1..=count).map(|port| Redirect {
            from: port,
            to: 15_080,
        });
        Rules::new(redirects.collect()).unwrap()
    }

    #[test]
    fn every_message_is_as_long_as_it_says_and_has_a_part() {
        for count in [1, 64] {
            let batch = replace(&rules(count));
            let lengths = lengths(&batch);
            assert_eq!(lengths.len(), batch.parts.len());
            assert_eq!(lengths.len(), 6 + usize::from(count));
            assert_eq!((lengths[0], lengths.last()), (20, Some(&20)));
        }
        assert_eq!(lengths(&remove()).len(), 4);
    }

    #[test]
    fn one_success_is_told() {
        for batch in [replace(&rules(3)), remove()] {
            let mut at = 0;
            let mut told = Vec::new();
            for length in lengths(&batch) {
                let flags = u16::from_ne_bytes(batch.bytes[at + 6..at + 8].try_into().unwrap());
                told.push(flags & libc::NLM_F_ACK as u16 != 0);
                at += length;
            }
            let before_the_end = told.len() - 2;
            assert_eq!(told.iter().filter(|told| **told).count(), 1);
            assert!(told[before_the_end]);
        }
    }

    #[test]
    fn an_attribute_is_padded_and_its_length_is_not() {
        let mut bytes = Vec::new();
        Attributes(&mut bytes).text(7, "nat!");
        let mut expected = 9_u16.to_ne_bytes().to_vec();
        expected.extend(7_u16.to_ne_bytes());
        expected.extend(b"nat!\0\0\0\0");
        assert_eq!(bytes, expected);
    }
}
