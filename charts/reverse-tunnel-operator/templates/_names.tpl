{{- define "reverse-tunnel-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 50 characters, so that names with a suffix fit into 63. */}}
{{- define "reverse-tunnel-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "reverse-tunnel-operator.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "reverse-tunnel-operator.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Contains the namespace, because cluster-wide objects of releases with the same name must not conflict. */}}
{{- define "reverse-tunnel-operator.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "reverse-tunnel-operator.fullname" .) }}
{{- end }}

{{- define "reverse-tunnel-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "reverse-tunnel-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "reverse-tunnel-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "reverse-tunnel-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata of an object: (dict "root" . "name" … "namespace" … "labels" … "annotations" …). The last three are optional. */}}
{{- define "reverse-tunnel-operator.metadata" -}}
name: {{ .name }}
{{- with .namespace }}
namespace: {{ . }}
{{- end }}
labels:
  {{- include "reverse-tunnel-operator.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "reverse-tunnel-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "reverse-tunnel-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "reverse-tunnel-operator.objectsNamespace" -}}
{{- default .Release.Namespace .Values.config.objectsNamespace }}
{{- end }}

{{- define "reverse-tunnel-operator.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry }}
{{- $name := printf "%s%s" (ternary "" (printf "%s/" $registry) (empty $registry)) .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $name .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "reverse-tunnel-operator.pullSecrets" -}}
{{- with concat .Values.global.imagePullSecrets .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* DNS name that reporters connect to. */}}
{{- define "reverse-tunnel-operator.host" -}}
{{- printf "%s.%s.svc.%s" (include "reverse-tunnel-operator.fullname" .) .Release.Namespace .Values.clusterDomain }}
{{- end }}
