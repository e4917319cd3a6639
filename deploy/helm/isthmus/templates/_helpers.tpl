{{/* The labels of an object: a list of the root context and the component, or "". */}}
{{- define "isthmus.labels" -}}
app.kubernetes.io/name: isthmus
app.kubernetes.io/part-of: isthmus
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* What finds the pods of a component. */}}
{{- define "isthmus.selector" -}}
app.kubernetes.io/name: isthmus
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* Every address of a pod. One without IPv6 cannot bind "::". */}}
{{- define "isthmus.any" -}}
{{- if has "IPv6" .Values.ipFamilies }}::{{ else }}0.0.0.0{{ end }}
{{- end }}

{{/* The same before a port. */}}
{{- define "isthmus.listen" -}}
{{- if has "IPv6" .Values.ipFamilies }}[::]{{ else }}0.0.0.0{{ end }}
{{- end }}

{{- define "isthmus.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}

{{/* The settings of a component: a list of the root context and the component. */}}
{{- define "isthmus.settings" -}}
{{- $root := index . 0 }}
{{- $component := index . 1 }}
{{- $values := $root.Values }}
{{- $listen := include "isthmus.listen" $root }}
cluster: {{ $values.cluster.name | quote }}
clusterset: {{ $values.clusterset.name | quote }}
region: {{ $values.cluster.region | quote }}
zone: {{ $values.cluster.zone | quote }}
{{- with $values.trustDomain }}
trustDomain: {{ . | quote }}
{{- end }}
state: /var/lib/isthmus
drain:
  delay: {{ ternary "0s" "5s" (eq $component "controller") }}
  deadline: 30s
ingress:
  enabled: {{ eq $component "eastwest" }}
  address: {{ include "isthmus.any" $root | quote }}
eastwest:
  enabled: {{ eq $component "eastwest" }}
  {{- if eq $component "eastwest" }}
  link: {{ printf "%s:15443" $listen | quote }}
  mesh: {{ printf "%s:15008" $listen | quote }}
  {{- end }}
controller:
  enabled: {{ eq $component "controller" }}
  {{- if eq $component "controller" }}
  discovery: {{ printf "%s:15012" $listen | quote }}
  federation: {{ printf "%s:15013" $listen | quote }}
  {{- end }}
ca:
  enabled: {{ eq $component "controller" }}
dns:
  enabled: {{ eq $component "dns" }}
  {{- if eq $component "dns" }}
  address: {{ printf "%s:15053" $listen | quote }}
  {{- end }}
telemetry:
  {{- with $values.telemetry.otlp }}
  otlp: {{ . | quote }}
  {{- end }}
  accessLog: {{ $values.telemetry.accessLog | quote }}
  sampling: {{ $values.telemetry.sampling }}
  metrics: {{ printf "%s:15020" $listen | quote }}
  ready: {{ printf "%s:15021" $listen | quote }}
log:
  filter: {{ $values.log.filter | quote }}
  format: {{ $values.log.format | quote }}
kubernetes:
  {{- if eq $component "controller" }}
  gatewayImage: {{ $values.gateways.image | default (include "isthmus.image" $root) | quote }}
  gatewayImagePullPolicy: {{ $values.image.pullPolicy }}
  tokenAuthority: {{ printf "%s:15010" $listen | quote }}
  {{- else }}
  authority: isthmus-controller.isthmus-system.svc:15010
  discovery: isthmus-controller.isthmus-system.svc:15012
  {{- end }}
{{- end }}

{{/* The beginning of a Service's spec. */}}
{{- define "isthmus.families" -}}
{{- with .Values.ipFamilies }}
ipFamilyPolicy: {{ ternary "PreferDualStack" "SingleStack" (gt (len .) 1) }}
ipFamilies: {{ toJson . }}
{{- end }}
{{- end }}
