{{- define "tokenweir.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "tokenweir.selector" -}}
app.kubernetes.io/name: tokenweir
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tokenweir.labels" -}}
{{ include "tokenweir.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "tokenweir.adminSecret" -}}
{{- .Values.admin.existingSecret | default (printf "%s-admin" (include "tokenweir.name" .)) -}}
{{- end -}}

{{- define "tokenweir.storeUrl" -}}
{{- if .Values.store.existingSecret -}}
${TOKENWEIR_STORE_URL}
{{- else -}}
{{- required "store.url or store.existingSecret: replicas must share a store" .Values.store.url -}}
{{- end -}}
{{- end -}}
