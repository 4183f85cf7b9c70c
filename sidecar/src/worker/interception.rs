//! Where a redirected connection goes: to the address that its client meant, and nowhere else.
//!
//! It owns which redirected connections are relayed. It looks nothing up and connects nowhere.
//!
//! A relay whose target is the original destination would, without these rules, connect to whatever anybody has redirected
//! to it, or to itself without end.

use std::net::SocketAddr;

use crate::flow::CloseReason;

/// Where a connection goes that came from `client` and was to go to `original`, if anything redirected it, to a relay of `port`.
///
/// # Errors
/// It must not be relayed.
pub(super) fn destination(
    client: Option<SocketAddr>,
    original: Option<SocketAddr>,
    port: u16,
) -> Result<SocketAddr, CloseReason> {
    // To relay what came by itself would be a second way to the application, past rules about its own port.
    let original = original
        .filter(|original| original.port() == port)
        .ok_or(CloseReason::NotRedirected)?;
    let ip = |address: SocketAddr| address.ip().to_canonical();
    // What this pod sends to itself, the relay's own connections among it, comes from the address that it goes to. Our rules
    // leave it alone; others' may not.
    if client.map(ip) == Some(ip(original)) {
        return Err(CloseReason::RedirectLoop);
    }
    Ok(original)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Option<SocketAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn what_was_redirected_goes_where_it_was_to_go() {
        let to = |client, original| destination(client, original, 8080);
        let own = at("10.0.0.7:8080");
        assert_eq!(to(at("[::ffff:10.0.0.9]:4"), own), Ok(own.unwrap()));
        // A client that is gone has no address any more; the connect finds out.
        assert_eq!(to(None, own), Ok(own.unwrap()));
        let six = at("[fd00::7]:8080");
        assert_eq!(to(at("[fd00::9]:4"), six), Ok(six.unwrap()));
    }

    #[test]
    fn what_was_not_or_not_from_this_port_is_refused() {
        let to = |original| destination(at("10.0.0.9:4"), original, 8080);
        assert_eq!(to(None), Err(CloseReason::NotRedirected));
        assert_eq!(to(at("10.0.0.7:22")), Err(CloseReason::NotRedirected));
    }

    #[test]
    fn what_goes_to_itself_is_not_relayed_for_ever() {
        let to = |client| destination(at(client), at("10.0.0.7:8080"), 8080);
        assert_eq!(to("[::ffff:10.0.0.7]:4"), Err(CloseReason::RedirectLoop));
        assert_eq!(to("10.0.0.7:4"), Err(CloseReason::RedirectLoop));
    }
}
