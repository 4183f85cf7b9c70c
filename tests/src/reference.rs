//! HAProxy as the relay: what a proven relay does in the same test tells whether the test is right.
//!
//! It knows how to write HAProxy's configuration and what HAProxy cannot be asked.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::processes::{command, free_port};
use crate::setup::Route;

/// The program's name, as [`processes::find`](crate::processes::find) takes it.
pub const PROGRAM: &str = "haproxy";

/// Writes the configuration into `folder`; returns the command and where each route listens.
pub(crate) fn prepare(folder: &Path, routes: &[Route]) -> (Command, Vec<SocketAddr>) {
    let mut text = String::from(
        "global\n  nbthread 1\n  maxconn 8000\n\
         defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n",
    );
    let mut addresses = Vec::new();
    for route in routes {
        // What follows the address is for HAProxy alone.
        let (listen, options) = route.listen.split_once(' ').unwrap_or((&route.listen, ""));
        let mut address: SocketAddr = listen.parse().expect("a test listens at an address");
        address.set_port(free_port());
        let target = match route.target.strip_prefix("unix:") {
            Some(path) => format!("unix@{path}"),
            None => route.target.clone(),
        };
        let header = if route.proxy_protocol == "V2" {
            "send-proxy-v2"
        } else {
            ""
        };
        let name = &route.name;
        writeln!(
            text,
            "listen {name}\n  bind {address} {options}\n  server target {target} {header}"
        )
        .expect("text grows");
        addresses.push(address);
    }
    let path = folder.join("haproxy.cfg");
    fs::write(&path, text).expect("a configuration is written");
    let mut command = command(PROGRAM);
    // -db: in the foreground.
    command.arg("-db").arg("-f").arg(path);
    (command, addresses)
}
