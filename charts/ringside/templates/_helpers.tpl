{{/* Names, labels and images: what every template shares. */}}

{{- define "ringside.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* What objects' names begin with: the release's name, with the chart's unless it is in it. 50 characters leave room for what follows. */}}
{{- define "ringside.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The controller's Deployment, Service, Lease and role. */}}
{{- define "ringside.controller" -}}
{{- printf "%s-controller" (include "ringside.fullname" .) }}
{{- end }}

{{/* What has no namespace: another installation's is called otherwise. */}}
{{- define "ringside.clusterName" -}}
{{- printf "%s.%s" (include "ringside.controller" .) .Release.Namespace }}
{{- end }}

{{- define "ringside.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "ringside.controller" .) .Values.serviceAccount.name }}
{{- else -}}
{{- .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{- define "ringside.secret" -}}
{{- default (printf "%s-tls" (include "ringside.controller" .)) .Values.certificates.secretName }}
{{- end }}

{{- define "ringside.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* By these a component's pods are found. Takes {root, component}. */}}
{{- define "ringside.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ringside.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Takes {root, component}. */}}
{{- define "ringside.labels" -}}
{{- $labels := include "ringside.selectorLabels" . | fromYaml -}}
{{- $_ := set $labels "helm.sh/chart" (include "ringside.chart" .root) -}}
{{- $_ := set $labels "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "ringside" -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- merge (dict) $labels .root.Values.commonLabels | toYaml }}
{{- end }}

{{/* An object's metadata. Takes {root, component, name}, and if they are wanted {namespace ("" for none), labels, annotations}. */}}
{{- define "ringside.metadata" -}}
name: {{ quote .name }}
{{- $namespace := .root.Release.Namespace -}}
{{- if hasKey . "namespace" }}{{ $namespace = .namespace }}{{ end -}}
{{- with $namespace }}
namespace: {{ quote . }}
{{- end }}
labels:
  {{- merge (dict) (include "ringside.labels" . | fromYaml) (default (dict) .labels) | toYaml | nindent 2 }}
{{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* An image's reference. Takes {root, image}. */}}
{{- define "ringside.image" -}}
{{- $name := .image.repository -}}
{{- with .image.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if .image.digest -}}
{{- with .image.tag }}{{ $name = printf "%s:%s" $name . }}{{ end -}}
{{- printf "%s@%s" $name .image.digest }}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) }}
{{- end -}}
{{- end }}

{{/* The certificates' names: the Service's as the controller has them, and what is asked for. */}}
{{- define "ringside.certificateNames" -}}
{{- $service := include "ringside.controller" . -}}
{{- $names := list (printf "%s.%s.svc" $service .Release.Namespace) (printf "%s.%s.svc.cluster.local" $service .Release.Namespace) $service -}}
{{- concat $names .Values.certificates.extraNames | uniq | toJson }}
{{- end }}

{{/* What `ringside-controller inject` needs, so that its sidecars are those that the webhook would make and call this controller. */}}
{{- define "ringside.injectFlags" -}}
{{- $controller := printf "%s.%s.svc:%v" (include "ringside.controller" .) .Release.Namespace .Values.service.port -}}
{{- $flags := list (printf "--image %s" (include "ringside.image" (dict "root" . "image" .Values.sidecar.image))) -}}
{{- $flags = concat $flags (list (printf "--controller %s" $controller) "--controller-ca ca.crt") -}}
{{- with .Values.service.clusterIP -}}
{{- $flags = append $flags (printf "--controller-address '%s:%v'" (contains ":" . | ternary (printf "[%s]" .) .) $.Values.service.port) -}}
{{- end -}}
{{- with .Values.sidecar.seccomp -}}
{{- if ne .mode "RuntimeDefault" -}}
{{- $flags = append $flags (printf "--seccomp %s" (eq .mode "Localhost" | ternary (printf "Localhost:%s" .profile) .mode)) -}}
{{- end -}}
{{- end -}}
{{- join " " $flags -}}
{{- end }}
