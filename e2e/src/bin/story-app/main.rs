//! The application of the stories and its clients, in one program for one image: `serve` answers with its pod's name, `load` asks and counts,
//! `ask` asks so often and ends, `order` tells a fault injector beside it what to do. It judges nothing: stories do.

mod asking;
mod load;
mod serve;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// How it is started.
const USAGE: &str = "\
story-app serve ADDRESS:PORT LINGER_MS           answers with POD_NAME; lingers so long after SIGTERM
story-app load REPORT_PORT TARGET GROUP...       clients of HOST:PORT; GROUP is NAME=keep|each|held:CLIENTS:PAUSE_MS:PATIENCE_MS
story-app ask TARGET REQUESTS PAUSE_MS           asks so often, a connection each, and ends well if all were answered
story-app order SOCKET LINE                      an order to ringside-inject; prints its answer";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["serve", address, linger] => run(serve::serve(address, linger)),
        ["load", port, target, ref groups @ ..] if !groups.is_empty() => {
            run(load::load(port, target, groups))
        }
        ["ask", target, requests, pause] => run(load::ask(target, requests, pause)),
        ["order", socket, line] => order(socket, line),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("story-app: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One thread does all of it: these machines are small.
fn run(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let done = runtime.block_on(work);
    // Clients that wait for answers are not waited for.
    runtime.shutdown_background();
    done
}

fn order(socket: &str, line: &str) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("no injector takes orders at {socket}: {error}");
    let mut stream = UnixStream::connect(socket).map_err(fail)?;
    writeln!(stream, "{line}").map_err(fail)?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .map_err(fail)?;
    print!("{answer}");
    if answer.starts_with("ok") {
        Ok(())
    } else {
        Err(format!("`{line}` was not obeyed"))
    }
}

/// A number of the command line.
fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    let number = word.parse();
    number.map_err(|_| format!("`{word}` is no number that is allowed here:\n{USAGE}"))
}
