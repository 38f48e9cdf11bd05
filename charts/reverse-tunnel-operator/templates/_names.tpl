{{/*
Every scalar that is text is quoted, and every number passes int64: YAML takes 12345, 1e5, true or 2026-11-28 for something else,
and Helm reads numbers of a values file as floats, which it prints as 1.34217728e+08.
*/}}

{{/* A map of texts, such as labels. Every value is quoted; toYaml omits the quotes of what only some parsers take for a number. */}}
{{- define "reverse-tunnel-operator.texts" -}}
{{- range $key, $value := . }}
{{ toYaml $key }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "reverse-tunnel-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | toString | trunc 63 | trimAll "-" }}
{{- end }}

{{/* Shortens a name: (dict "name" … "length" …). A name must not end with the dash at which it was cut. */}}
{{- define "reverse-tunnel-operator.shorten" -}}
{{- regexReplaceAll "[^a-z0-9]+$" (trunc (int .length) .name) "" }}
{{- end }}

{{/* At most 50 characters, so that the name of a Service with a suffix fits into 63. */}}
{{- define "reverse-tunnel-operator.fullname" -}}
{{- $name := include "reverse-tunnel-operator.name" . }}
{{- $full := printf "%s-%s" .Release.Name $name }}
{{- if .Values.fullnameOverride }}
{{- $full = toString .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- $full = .Release.Name }}
{{- end }}
{{- /* Before Kubernetes 1.36, the name of a Service must start with a letter. */}}
{{- if regexMatch "^[0-9]" $full }}
{{- $full = printf "rt-%s" $full }}
{{- end }}
{{- include "reverse-tunnel-operator.shorten" (dict "name" $full "length" 50) }}
{{- end }}

{{/* Contains the namespace, because cluster-wide objects of releases with the same name must not conflict. */}}
{{- define "reverse-tunnel-operator.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "reverse-tunnel-operator.fullname" .) }}
{{- end }}

{{- define "reverse-tunnel-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "reverse-tunnel-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* A version as a label value: at most 63 characters, without the + of build metadata, ending with a letter or digit. */}}
{{- define "reverse-tunnel-operator.labelValue" -}}
{{- regexReplaceAll "[^A-Za-z0-9]+$" (. | toString | replace "+" "_" | trunc 63) "" }}
{{- end }}

{{/* Labels of an object: (dict "root" . "labels" …). Merged, because YAML forbids a key that occurs twice. */}}
{{- define "reverse-tunnel-operator.labels" -}}
{{- $standard := dict "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $_ := set $standard "helm.sh/chart" (include "reverse-tunnel-operator.labelValue" (printf "%s-%s" .root.Chart.Name .root.Chart.Version)) }}
{{- $_ := set $standard "app.kubernetes.io/version" (include "reverse-tunnel-operator.labelValue" .root.Chart.AppVersion) }}
{{- $own := include "reverse-tunnel-operator.selectorLabels" .root | fromYaml }}
{{- include "reverse-tunnel-operator.texts" (merge (dict) $own $standard (.labels | default dict) (.root.Values.commonLabels | default dict)) | trim }}
{{- end }}

{{/* Metadata of an object: (dict "root" . "name" … "namespace" … "labels" … "annotations" …). The last three are optional. */}}
{{- define "reverse-tunnel-operator.metadata" -}}
name: {{ .name | quote }}
{{- with .namespace }}
namespace: {{ . | quote }}
{{- end }}
labels:
  {{- include "reverse-tunnel-operator.labels" . | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- include "reverse-tunnel-operator.texts" . | indent 2 }}
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
{{- $registry := default .Values.image.registry (.Values.global).imageRegistry }}
{{- $name := printf "%s%s" (empty $registry | ternary "" (printf "%s/" $registry)) .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $name .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* What the pods of the operator and the test pod have in common. */}}
{{- define "reverse-tunnel-operator.podSpec" -}}
automountServiceAccountToken: true
enableServiceLinks: false
{{- with concat (((.Values.global).imagePullSecrets) | default list) (.Values.imagePullSecrets | default list) }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .Values.schedulerName }}
schedulerName: {{ . | quote }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . | quote }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- include "reverse-tunnel-operator.texts" . | indent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* DNS name that reporters connect to. */}}
{{- define "reverse-tunnel-operator.host" -}}
{{- printf "%s.%s.svc.%s" (include "reverse-tunnel-operator.fullname" .) .Release.Namespace (default "cluster.local" .Values.clusterDomain) }}
{{- end }}

{{/* "true" if the operator rejects every client while no policy exists, otherwise empty. */}}
{{- define "reverse-tunnel-operator.requirePolicy" -}}
{{- if or .Values.config.requirePolicy .Values.policies }}true{{ end }}
{{- end }}
