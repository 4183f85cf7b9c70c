//! `/metrics`: every figure with what it is and its unit, read from what workers publish at the moment of the scrape.
//!
//! Labels take their values from fixed lists, workers and relays; none is an address or a connection.

mod controller;
mod families;
mod process_figures;
mod relays;
mod whole;
mod workers;

use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Registry, TextEncoder};

use crate::process::State;
use families::Families;

/// Writes the metrics of one process.
#[derive(Clone)]
pub(super) struct Exporter(Registry);

impl Exporter {
    /// For the process of this state.
    ///
    /// # Errors
    /// The registry refuses the metrics: two of them have one name.
    pub(super) fn new(state: Arc<State>) -> prometheus::Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(Figures {
            build_info: Desc::new(
                "ringside_build_info".to_owned(),
                whole::BUILD_INFO_HELP.to_owned(),
                vec!["version".to_owned(), "commit".to_owned()],
                std::collections::HashMap::new(),
            )?,
            state,
        }))?;
        Ok(Exporter(registry))
    }

    /// All metrics in the text format.
    pub(super) fn text(&self) -> (StatusCode, [(HeaderName, &'static str); 1], Vec<u8>) {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.0.gather(), &mut text) {
            Ok(()) => (
                StatusCode::OK,
                [(CONTENT_TYPE, prometheus::TEXT_FORMAT)],
                text,
            ),
            Err(error) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                [(CONTENT_TYPE, "text/plain")],
                format!("the metrics cannot be written: {error}\n").into_bytes(),
            ),
        }
    }
}

/// Reads all figures whenever it is asked.
struct Figures {
    state: Arc<State>,
    build_info: Desc,
}

impl Collector for Figures {
    fn desc(&self) -> Vec<&Desc> {
        // The one name that is always there stands for all of them.
        vec![&self.build_info]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        whole::add(&mut families, &self.state);
        controller::add(&mut families, &self.state);
        workers::add(&mut families, &self.state.team);
        relays::add(&mut families, &self.state);
        let shared = self.state.team.shared();
        let limit = shared
            .descriptor_limit
            .load(std::sync::atomic::Ordering::Relaxed);
        process_figures::add(&mut families, self.state.started, limit);
        families.into_families()
    }
}
