//! What a run found: one record, shown as a line of JSON and as text.
//!
//! Owns the arithmetic from counts to figures per unit of work; must never measure.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::latency::Histogram;
use crate::process::{Cpu, Memory};

/// What one unit of work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// A request and its reply on a standing connection.
    Request,
    /// 10^9 bytes moved from one side to the other.
    Gigabyte,
    /// A connection with one request and its reply, from connect to close.
    Connection,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// Half of the replies came within this.
    pub p50_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1000.
    pub p999_us: f64,
}

impl Latency {
    /// The usual three quantiles of a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram) -> Self {
        let us = |per_mille| histogram.quantile(per_mille) as f64 / 1e3;
        Self {
            p50_us: us(500),
            p99_us: us(990),
            p999_us: us(999),
        }
    }
}

/// What one run of a workload found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    /// The workload's name.
    pub workload: String,
    /// Connections open at a time.
    pub connections: usize,
    /// How long it was measured, in seconds.
    pub seconds: f64,
    /// What is counted.
    pub unit: Unit,
    /// How many units were done.
    pub units: f64,
    /// Units that failed.
    pub errors: u64,
    /// Round-trip times, where the workload has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Gigabytes moved beside the units counted (mixed).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulk_gigabytes: Option<f64>,
    /// CPU that the relay used meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_cpu: Option<Cpu>,
    /// The same per unit, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_cpu_us_per_unit: Option<f64>,
    /// The relay's memory at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_memory: Option<Memory>,
    /// What each connection added to the relay's own pages (RssAnon), in bytes (idle).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_bytes_per_connection: Option<f64>,
}

impl Report {
    /// A report with counts; the rest is added by the `with_` methods.
    pub(crate) fn new(
        workload: &str,
        connections: usize,
        elapsed: Duration,
        unit: Unit,
        units: f64,
    ) -> Self {
        Self {
            workload: workload.into(),
            connections,
            seconds: elapsed.as_secs_f64(),
            unit,
            units,
            errors: 0,
            latency: None,
            bulk_gigabytes: None,
            relay_cpu: None,
            relay_cpu_us_per_unit: None,
            relay_memory: None,
            relay_bytes_per_connection: None,
        }
    }

    /// Adds latencies.
    pub(crate) fn with_latency(mut self, histogram: &Histogram) -> Self {
        self.latency = Some(Latency::of(histogram));
        self
    }

    /// Adds the CPU that the relay used, unless none was watched.
    pub(crate) fn with_cpu(mut self, cpu: Option<Cpu>) -> Self {
        self.relay_cpu = cpu;
        self.relay_cpu_us_per_unit = cpu
            .filter(|_| self.units > 0.0)
            .map(|cpu| cpu.total_ns as f64 / 1e3 / self.units);
        self
    }

    /// One line of JSON.
    pub(crate) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            workload,
            connections,
            seconds,
            units,
            errors,
            ..
        } = self;
        write!(f, "{workload}: {connections} connections, {seconds:.2} s")?;
        let rate = if *seconds > 0.0 { units / seconds } else { 0.0 };
        match self.unit {
            Unit::Request => write!(f, ", {rate:.0} requests/s")?,
            Unit::Gigabyte => write!(f, ", {units:.2} GB, {rate:.2} GB/s")?,
            Unit::Connection => write!(f, ", {rate:.0} connections/s")?,
        }
        if let Some(latency) = self.latency {
            write!(
                f,
                ", latency p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us",
                latency.p50_us, latency.p99_us, latency.p999_us
            )?;
        }
        if let Some(bulk) = self.bulk_gigabytes {
            write!(f, ", beside {:.2} GB/s of bulk", bulk / seconds.max(1e-9))?;
        }
        if *errors > 0 {
            write!(f, ", {errors} FAILED")?;
        }
        if let (Some(cpu), Some(per_unit)) = (self.relay_cpu, self.relay_cpu_us_per_unit) {
            let busy = cpu.total_ns as f64 / 1e7 / seconds.max(1e-9);
            let user = 100.0 * cpu.user_ns as f64 / ((cpu.user_ns + cpu.system_ns) as f64).max(1.0);
            match self.unit {
                Unit::Request => write!(f, "; relay {per_unit:.2} us/request")?,
                Unit::Gigabyte => write!(f, "; relay {:.3} s/GB", per_unit / 1e6)?,
                Unit::Connection => write!(f, "; relay {per_unit:.1} us/connection")?,
            }
            write!(f, " ({busy:.0} % of a CPU, {user:.0} % of it user)")?;
        }
        if let Some(memory) = self.relay_memory {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            write!(
                f,
                "; relay memory {:.2} MiB resident, {:.2} MiB own",
                mib(memory.resident_bytes),
                mib(memory.anonymous_bytes)
            )?;
        }
        if let Some(bytes) = self.relay_bytes_per_connection {
            write!(f, ", {:.2} KiB own per connection", bytes / 1024.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_divided_by_the_units_done() {
        let report = Report::new("ping", 64, Duration::from_secs(2), Unit::Request, 1000.0)
            .with_cpu(Some(Cpu {
                total_ns: 7_500_000,
                user_ns: 0,
                system_ns: 10_000_000,
            }));
        assert_eq!(report.relay_cpu_us_per_unit, Some(7.5));
        assert!(
            report
                .to_string()
                .contains("500 requests/s; relay 7.50 us/request"),
            "{report}"
        );
    }

    #[test]
    fn a_run_without_work_has_no_figure_instead_of_an_infinite_one() {
        let report = Report::new("churn", 1, Duration::ZERO, Unit::Connection, 0.0)
            .with_cpu(Some(Cpu::default()));
        assert_eq!(report.relay_cpu_us_per_unit, None);
        assert!(!report.json().unwrap().contains("inf"));
    }
}
