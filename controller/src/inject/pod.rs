//! A pod as it is written, looked at without believing any of it: raw JSON, in which each field may be missing, null or of a
//! wrong type. It owns the reading; it never changes anything.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// A pod, or the template of one, whose shape allows to add to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pod<'a> {
    whole: &'a Value,
    pub(super) spec: &'a Map<String, Value>,
}

impl<'a> Pod<'a> {
    /// The pod, unless something that is added to is of a wrong type; then a sentence.
    pub(super) fn read(whole: &'a Value) -> Result<Self, String> {
        let Some(spec) = whole.get("spec").and_then(Value::as_object) else {
            return Err("it has no spec".to_owned());
        };
        let pod = Self { whole, spec };
        let is_missing = |value: Option<&Value>| value.is_none_or(Value::is_null);
        for path in ["/metadata", "/metadata/annotations", "/metadata/labels"] {
            let value = whole.pointer(path);
            if !is_missing(value) && !value.is_some_and(Value::is_object) {
                return Err(format!("{path} is no object"));
            }
        }
        for field in ["containers", "initContainers", "volumes"] {
            let value = spec.get(field);
            if !is_missing(value) && !value.is_some_and(Value::is_array) {
                return Err(format!("/spec/{field} is no list"));
            }
        }
        Ok(pod)
    }

    /// An object of the pod's metadata; empty where it is missing.
    pub(super) fn metadata(&self, field: &str) -> Option<&'a Value> {
        self.whole
            .get("metadata")?
            .get(field)
            .filter(|value| !value.is_null())
    }

    /// The pod's annotations, whatever their values.
    pub(super) fn annotations(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let annotations = self.metadata("annotations").and_then(Value::as_object);
        annotations
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// An annotation that is text.
    pub(super) fn annotation(&self, key: &str) -> Option<&'a str> {
        self.metadata("annotations")?.get(key)?.as_str()
    }

    /// Whether something that is neither missing nor null is at this path of the whole.
    pub(super) fn has(&self, path: &str) -> bool {
        self.whole
            .pointer(path)
            .is_some_and(|value| !value.is_null())
    }

    /// What is at this path of the spec.
    pub(super) fn at(&self, path: &str) -> Option<&'a Value> {
        self.whole.get("spec")?.pointer(path)
    }

    /// The members of a list of the spec.
    pub(super) fn list(&self, field: &str) -> &'a [Value] {
        let list = self.spec.get(field).and_then(Value::as_array);
        list.map_or(&[], Vec::as_slice)
    }

    /// The containers of the application.
    pub(super) fn containers(&self) -> &'a [Value] {
        self.list("containers")
    }

    /// The containers that run beside each other: the application's and other sidecars.
    fn running(&self) -> impl Iterator<Item = &'a Value> {
        let sidecars = self.list("initContainers").iter();
        self.containers()
            .iter()
            .chain(sidecars.filter(|container| text(container, "restartPolicy") == Some("Always")))
    }

    /// Whether a member of this list of the spec has the name.
    pub(super) fn has_named(&self, field: &str, name: &str) -> bool {
        let mut members = self.list(field).iter();
        members.any(|member| text(member, "name") == Some(name))
    }

    /// The TCP ports that the application's containers declare, each once, in their order.
    pub(super) fn tcp_ports(&self) -> Vec<u16> {
        let mut ports = Vec::new();
        for port in self.containers().iter().flat_map(declared_ports) {
            if port.is_tcp && !ports.contains(&port.number) {
                ports.push(port.number);
            }
        }
        ports
    }

    /// The names that the application's containers give to their ports.
    pub(super) fn application_port_names(&self) -> BTreeSet<&'a str> {
        let ports = self.containers().iter().flat_map(declared_ports);
        ports.filter_map(|port| port.name).collect()
    }

    /// The names that all containers which run give to their ports.
    pub(super) fn port_names(&self) -> BTreeSet<&'a str> {
        let ports = self.running().flat_map(declared_ports);
        ports.filter_map(|port| port.name).collect()
    }

    /// The TCP ports that containers which run say that they listen on: declared, or asked for by a probe.
    pub(super) fn ports_in_use(&self) -> BTreeSet<u16> {
        let mut ports = BTreeSet::new();
        for container in self.running() {
            let declared = declared_ports(container).filter(|port| port.is_tcp);
            ports.extend(declared.map(|port| port.number));
            let probes = [
                "/startupProbe",
                "/readinessProbe",
                "/livenessProbe",
                "/lifecycle/postStart",
                "/lifecycle/preStop",
            ];
            for probe in probes.into_iter().filter_map(|at| container.pointer(at)) {
                for kind in ["httpGet", "tcpSocket", "grpc"] {
                    let at = probe.get(kind);
                    // A probe of another host tells nothing of this pod.
                    let is_elsewhere = at.is_some_and(|at| at.get("host").is_some());
                    ports.extend(
                        at.filter(|_| !is_elsewhere)
                            .and_then(|at| port_number(at.get("port")?)),
                    );
                }
            }
        }
        ports
    }

    /// The mount by which a container of the application has a folder above `path`: the deepest one.
    pub(super) fn mount_over(&self, path: &str) -> Option<&'a Value> {
        let mounts = self
            .containers()
            .iter()
            .filter_map(|container| container.get("volumeMounts")?.as_array())
            .flatten();
        let above = mounts.filter(|mount| {
            let rest = text(mount, "mountPath")
                .and_then(|folder| path.strip_prefix(folder.trim_end_matches('/')));
            text(mount, "name").is_some() && rest.is_some_and(|rest| rest.starts_with('/'))
        });
        above.max_by_key(|mount| text(mount, "mountPath").map_or(0, str::len))
    }
}

/// A field that is text.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field)?.as_str()
}

/// A port that a container declares.
struct DeclaredPort<'a> {
    number: u16,
    name: Option<&'a str>,
    is_tcp: bool,
}

fn declared_ports(container: &Value) -> impl Iterator<Item = DeclaredPort<'_>> {
    let ports = container.get("ports").and_then(Value::as_array);
    ports.into_iter().flatten().filter_map(|port| {
        Some(DeclaredPort {
            number: port_number(port.get("containerPort")?)?,
            name: text(port, "name"),
            is_tcp: matches!(text(port, "protocol"), None | Some("TCP")),
        })
    })
}

fn port_number(value: &Value) -> Option<u16> {
    let number = u16::try_from(value.as_u64()?).ok()?;
    (number > 0).then_some(number)
}
