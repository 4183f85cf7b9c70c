//! A benchmark's figures: printed as they come, and as a table at the end.

/// The table of a benchmark.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: &'static str,
    asked: &'static str,
    measured: String,
}

impl Table {
    /// A figure: what it is, what is asked of it, and what it was.
    pub fn row(&mut self, what: &'static str, asked: &'static str, measured: String) {
        println!("{what}: {measured}");
        self.rows.push(Row {
            what,
            asked,
            measured,
        });
    }

    /// All of them.
    pub fn print(&self, title: &str) {
        println!("\n| {title} | asked | measured |\n|---|---|---|");
        for Row {
            what,
            asked,
            measured,
        } in &self.rows
        {
            println!("| {what} | {asked} | {measured} |");
        }
    }
}

/// A number that the environment gives, as in `SIDECARS=100`.
///
/// # Panics
/// If what it gives is none.
pub fn number(name: &str, default: usize) -> usize {
    let given = std::env::var(name).ok().filter(|text| !text.is_empty());
    given.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, but must be a number"))
    })
}

/// The value below which `share` of all lie; NaN where there is none.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * share).ceil() as usize;
    values
        .get(index.clamp(1, values.len().max(1)) - 1)
        .copied()
        .unwrap_or(f64::NAN)
}

/// Lets this process, and what it starts, have so many descriptors.
///
/// # Panics
/// If they cannot be had.
pub fn raise_descriptors(wanted: u64) {
    let raised = ringside::backend::descriptors::raise_limit().unwrap_or(0);
    assert!(
        raised >= wanted,
        "at most {raised} descriptors can be open here, and {wanted} are needed: ask for fewer SIDECARS"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut values = [3.0, 1.0, 2.0, 4.0];
        assert_eq!(quantile(&mut values, 0.5), 2.0);
        assert_eq!(quantile(&mut values, 0.99), 4.0);
        assert_eq!(quantile(&mut values, 0.0), 1.0);
        assert!(quantile(&mut [], 0.5).is_nan());
    }
}
