//! The dashboard as Grafana imports it, made of the list of panels. It owns Grafana's words; which panels there are is the list's.

use serde_json::{Value, json};

use crate::panels::{Bad, Look, Panel, ROWS, Row};

/// The dashboard's own id: whoever imports it again replaces it.
pub const UID: &str = "ringside";

/// Grafana's version of the format: that of Grafana 11, which later ones read as well.
const SCHEMA: u32 = 39;

const COLUMNS: u32 = 24;

/// The dashboard's JSON, ended by a newline.
pub fn text() -> String {
    let mut text = format!("{:#}", dashboard());
    text.push('\n');
    text
}

/// The dashboard.
pub fn dashboard() -> Value {
    json!({
        "uid": UID,
        "title": "Ringside",
        "description": "Sidecars and their controller. Generated: `make manifests` writes it anew.",
        "tags": ["ringside"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "timezone": "browser",
        "weekStart": "",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "links": [],
        "annotations": {"list": [annotation()]},
        "templating": {"list": [source(), variable("namespace", "Namespace", ""), variable("pod", "Pod", r#"{namespace=~"$namespace"}"#)]},
        "panels": panels(),
    })
}

fn annotation() -> Value {
    json!({
        "name": "Alerts",
        "datasource": datasource(),
        "enable": true,
        "iconColor": "red",
        "expr": r#"ALERTS{alertname=~"Ringside.+", alertstate="firing", severity!="info"}"#,
    })
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn source() -> Value {
    json!({
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        "hide": 0, "skipUrlSync": false, "multi": false, "includeAll": false, "regex": "", "refresh": 1,
        "options": [], "current": {},
    })
}

/// A variable whose "All" also matches what has no such label, as where no Kubernetes is.
fn variable(name: &str, label: &str, of: &str) -> Value {
    let query = format!("label_values(ringside_build_info{of}, {name})");
    json!({
        "name": name, "label": label, "type": "query", "datasource": datasource(),
        "query": {"query": query, "refId": format!("variable-{name}")},
        "hide": 0, "skipUrlSync": false, "multi": true, "includeAll": true, "allValue": ".*",
        "regex": "", "refresh": 2, "sort": 1, "options": [],
        "current": {"selected": true, "text": ["All"], "value": ["$__all"]},
    })
}

fn panels() -> Vec<Value> {
    let (mut all, mut id, mut top) = (Vec::new(), 0, 0);
    for row in &ROWS {
        id += 1;
        all.push(json!({
            "id": id, "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
        }));
        top += 1;
        let height = height(row);
        let mut left = 0;
        for panel in row.panels {
            id += 1;
            if left + panel.width > COLUMNS {
                left = 0;
                top += height;
            }
            let place = json!({"x": left, "y": top, "w": panel.width, "h": height});
            all.push(drawn(panel, id, place));
            left += panel.width;
        }
        top += height;
    }
    all
}

fn height(row: &Row) -> u32 {
    let is_number = |panel: &Panel| matches!(panel.look, Look::Number { .. });
    if row.panels.iter().all(is_number) {
        4
    } else {
        8
    }
}

fn drawn(panel: &Panel, id: u32, place: Value) -> Value {
    let is_table = panel.look == Look::Table;
    let is_now = is_table || matches!(panel.look, Look::Number { .. });
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .enumerate()
        .map(|(index, query)| {
            json!({
                "refId": format!("query-{}", index + 1),
                "datasource": datasource(),
                "editorMode": "code",
                "expr": query.expr(),
                "legendFormat": if is_table { "__auto" } else { query.legend },
                "format": if is_table { "table" } else { "time_series" },
                "instant": is_now,
                "range": !is_now,
            })
        })
        .collect();
    let (kind, options) = options(panel.look);
    let mut drawn = json!({
        "id": id, "type": kind, "title": panel.title, "description": panel.description,
        "datasource": datasource(), "gridPos": place, "targets": targets, "options": options,
        "fieldConfig": {"defaults": defaults(panel), "overrides": []},
    });
    if is_table {
        // The moment of each row is the same and tells nothing.
        drawn["transformations"] = json!([{
            "id": "organize",
            "options": {"excludeByName": {"Time": true}, "indexByName": {}, "renameByName": {"Value": "sidecars"}},
        }]);
    }
    drawn
}

fn options(look: Look) -> (&'static str, Value) {
    match look {
        Look::Number { .. } => (
            "stat",
            json!({
                "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false}, "textMode": "value",
            }),
        ),
        Look::Lines | Look::Stacked => (
            "timeseries",
            json!({
                "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": true},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
        ),
        Look::Table => (
            "table",
            json!({"cellHeight": "sm", "showHeader": true, "footer": {"show": false, "reducer": ["sum"], "countRows": false, "fields": ""}}),
        ),
    }
}

fn defaults(panel: &Panel) -> Value {
    let unit = panel.unit.grafana();
    match panel.look {
        Look::Number { bad } => json!({
            "unit": unit, "min": 0, "color": {"mode": "thresholds"}, "mappings": [],
            "thresholds": {"mode": "absolute", "steps": steps(bad)},
        }),
        Look::Lines | Look::Stacked => {
            let is_stacked = panel.look == Look::Stacked;
            json!({
                "unit": unit, "min": 0, "color": {"mode": "palette-classic"}, "mappings": [],
                "custom": {
                    "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "showPoints": "never", "spanNulls": false,
                    "fillOpacity": if is_stacked { 30 } else { 5 },
                    "stacking": {"group": "A", "mode": if is_stacked { "normal" } else { "none" }},
                },
            })
        }
        Look::Table => json!({"unit": unit, "custom": {"align": "auto", "inspect": true}}),
    }
}

fn steps(bad: Bad) -> Value {
    match bad {
        Bad::Never => json!([{"color": "text", "value": null}]),
        Bad::AboveZero => json!([{"color": "green", "value": null}, {"color": "red", "value": 1}]),
        Bad::BelowOne => json!([{"color": "red", "value": null}, {"color": "green", "value": 1}]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_checked_in_is_what_is_generated() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../manifests/grafana/ringside.json"
        );
        let checked_in = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            checked_in == text(),
            "manifests/grafana/ringside.json is stale: `make manifests` writes it anew"
        );
    }

    /// Read back from the file's JSON, so that it is what Grafana asks.
    #[test]
    fn every_query_of_the_list_is_in_the_file_and_no_other() {
        let dashboard: Value = serde_json::from_str(&text()).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        let written: Vec<String> = panels
            .iter()
            .filter_map(|panel| panel["targets"].as_array())
            .flatten()
            .map(|target| target["expr"].as_str().unwrap().to_owned())
            .collect();
        let listed: Vec<String> = crate::panels::all()
            .flat_map(|panel| panel.queries)
            .map(crate::panels::Query::expr)
            .collect();
        assert_eq!(written, listed);
        assert!(listed.len() > 50, "{} queries", listed.len());
    }

    #[test]
    fn no_panel_lies_on_another_and_ids_are_their_own() {
        let panels = panels();
        let place =
            |panel: &Value| ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        for (index, one) in panels.iter().enumerate() {
            let [x, y, w, h] = place(one);
            assert!(x + w <= u64::from(COLUMNS));
            for other in &panels[..index] {
                let [ox, oy, ow, oh] = place(other);
                let apart = x >= ox + ow || ox >= x + w || y >= oy + oh || oy >= y + h;
                assert!(apart, "{} lies on {}", one["title"], other["title"]);
                assert_ne!(one["id"], other["id"]);
            }
        }
    }
}
