{{/* "true" if the port uses TLS, otherwise empty. */}}
{{- define "reverse-tunnel-operator.tls" -}}
{{- if or .Values.tls.secretName .Values.tls.certManager.enabled .Values.tls.selfSigned.enabled }}true{{ end }}
{{- end }}

{{- define "reverse-tunnel-operator.tlsSecret" -}}
{{- default (printf "%s-tls" (include "reverse-tunnel-operator.fullname" .)) .Values.tls.secretName }}
{{- end }}

{{/* "true" if client certificates are verified, otherwise empty. */}}
{{- define "reverse-tunnel-operator.clientCerts" -}}
{{- if has .Values.auth.mode (list "mtls" "mtls-or-token") }}true{{ end }}
{{- end }}

{{/* "true" if tokens are verified, otherwise empty. */}}
{{- define "reverse-tunnel-operator.tokens" -}}
{{- if has .Values.auth.mode (list "token" "mtls-or-token") }}true{{ end }}
{{- end }}

{{- define "reverse-tunnel-operator.clientCASecret" -}}
{{- default (include "reverse-tunnel-operator.tlsSecret" .) .Values.tls.clientCA.secretName }}
{{- end }}

{{/* Secret with the client certificate of `helm test`; empty if there is none. */}}
{{- define "reverse-tunnel-operator.testClientSecret" -}}
{{- if .Values.tests.clientSecretName }}
{{- .Values.tests.clientSecretName }}
{{- else if .Values.tls.selfSigned.enabled }}
{{- printf "%s-client-tls" (include "reverse-tunnel-operator.fullname" .) }}
{{- end }}
{{- end }}

{{/* Name that clients verify in the certificate of the operator. */}}
{{- define "reverse-tunnel-operator.serverName" -}}
{{- default (include "reverse-tunnel-operator.host" .) .Values.tls.serverName }}
{{- end }}

{{/* All names of the Service and the additional names, as a YAML list. */}}
{{- define "reverse-tunnel-operator.dnsNames" -}}
{{- $name := include "reverse-tunnel-operator.fullname" . }}
{{- $namespace := .Release.Namespace }}
{{- $names := list $name (printf "%s.%s" $name $namespace) (printf "%s.%s.svc" $name $namespace) (include "reverse-tunnel-operator.host" .) (include "reverse-tunnel-operator.serverName" .) }}
{{- toYaml (concat $names (.Values.tls.dnsNames | default list) | uniq) }}
{{- end }}
