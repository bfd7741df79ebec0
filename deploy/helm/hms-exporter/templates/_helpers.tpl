{{- define "hms-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "hms-exporter.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "hms-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "hms-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hms-exporter.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "hms-exporter.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: exporter
app.kubernetes.io/part-of: {{ include "hms-exporter.name" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "hms-exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "hms-exporter.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "hms-exporter.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* What cannot work is refused, with what would. */}}
{{- define "hms-exporter.refusals" -}}
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.postgresql.existingSecret) }}
{{- fail "replicaCount: more than one exporter needs PostgreSQL; set postgresql.existingSecret, or replicaCount=1, as a SQLite file belongs to one exporter" }}
{{- end }}
{{- range $section := list "storage" "webhooks" }}
{{- if hasKey $.Values.config $section }}
{{- fail (printf "config.%s: the chart writes this section; see %s" $section (ternary "persistence and postgresql" "webhooks" (eq $section "storage"))) }}
{{- end }}
{{- end }}
{{- if hasKey (default dict .Values.config.web) "listen_address" }}
{{- fail "config.web.listen_address: the chart's Service, probes and policies know port 10100; set service.port for another one outside the pod" }}
{{- end }}
{{- if and (not .Values.existingSecret) (contains "/etc/hms-exporter/credentials/" (toJson .Values.config.workspaces)) }}
{{- fail "existingSecret: config.workspaces names files in /etc/hms-exporter/credentials, which come from a Secret; create one with the keys access_key and secret, and name it here" }}
{{- end }}
{{- if and .Values.webhooks.enabled (not .Values.webhooks.headers) (not .Values.webhooks.signatureSecret) }}
{{- fail "webhooks: set headers or signatureSecret, as anybody could send events otherwise" }}
{{- end }}
{{- if and .Values.webhooks.ingress.enabled (not .Values.webhooks.ingress.host) }}
{{- fail "webhooks.ingress.host: the ingress needs the name under which 100ms reaches it" }}
{{- end }}
{{- end }}

{{/* The exporter's config.yaml. */}}
{{- define "hms-exporter.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if .Values.postgresql.existingSecret }}
{{- $_ := set $config "storage" (dict "url_file" (printf "/etc/hms-exporter/postgresql/%s" .Values.postgresql.key)) }}
{{- else }}
{{- $_ := set $config "storage" (dict "path" "/data/hms-exporter.db") }}
{{- end }}
{{- if .Values.webhooks.enabled }}
{{- $webhooks := dict "listen_address" (printf ":%d" (int .Values.webhooks.port)) }}
{{- with .Values.webhooks.headers }}{{ $_ := set $webhooks "headers" . }}{{ end }}
{{- with .Values.webhooks.signatureSecret }}{{ $_ := set $webhooks "signature_secret" . }}{{ end }}
{{- $_ := set $config "webhooks" $webhooks }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* Asks the exporter's health: over HTTP by the kubelet, or where TLS and passwords stand before it, by the exporter's own command. */}}
{{- define "hms-exporter.probe" -}}
{{- if .Values.webConfig.existingSecret }}
exec:
  command:
    - hms-exporter
    - check
    - --healthy
    - --config.file=/etc/hms-exporter/config/config.yaml
    - --web.config.file=/etc/hms-exporter/web/web.yml
{{- else }}
httpGet:
  path: /-/healthy
  port: metrics
{{- end }}
{{- end }}
