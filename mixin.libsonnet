// The dashboards, alerts and recording rules for who builds monitoring with Jsonnet: the same files that everybody else loads.
// Use:  local hms = import 'hms-exporter/mixin.libsonnet';
local rules(text) = std.parseYaml(text).groups;

{
  grafanaDashboards+:: {
    'hms-exporter.json': import 'grafana/dashboards/hms-exporter.json',
    'hms-overview.json': import 'grafana/dashboards/hms-overview.json',
    'hms-recordings.json': import 'grafana/dashboards/hms-recordings.json',
    'hms-room.json': import 'grafana/dashboards/hms-room.json',
    'hms-usage.json': import 'grafana/dashboards/hms-usage.json',
  },

  prometheusAlerts+:: {
    groups+: rules(importstr 'prometheus/rules/hms-alerts.yml'),
  },

  prometheusRules+:: {
    groups+:
      rules(importstr 'prometheus/rules/hms-recording.yml')
      + rules(importstr 'prometheus/rules/hms-thresholds.yml'),
  },
}
