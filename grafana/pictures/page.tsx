// Draws one dashboard for a picture: panels by Grafana's own components, answers from a Prometheus.
//
// The address says what to draw: ?prometheus=URL&theme=dark&width=1366&seconds=86400&room=NAME.  dashboard.json lies beside
// the page.  Heatmaps and state timelines are not among Grafana's published components; those here are drawn with plain boxes.
import { ReactNode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import * as data from '@grafana/data';
import { BigValue, Gauge, GlobalStyles, PanelChrome, Table, TimeSeries, VizRepeater } from '@grafana/ui';

type Any = any; // Grafana's component types are wider than what a file of a dashboard says

const asked = new URLSearchParams(location.search);
const prometheus = asked.get('prometheus')!;
const width = Number(asked.get('width') ?? 1366);
const theme = data.createTheme({ colors: { mode: asked.get('theme') === 'light' ? 'light' : 'dark' } });
const until = Math.floor(Date.now() / 1000);
const CELL_HEIGHT = 38;
const GAP = 8;

// --- What Grafana's application tells its libraries -------------------------------------------------------------------

const setting = (id: string, process: Any, custom = false): Any => ({
  id: custom ? `custom.${id}` : id, path: id, name: id, isCustom: custom, process, shouldApply: () => true,
});
const asItIs = data.identityOverrideProcessor;
const standard = [
  setting('unit', data.unitOverrideProcessor), setting('min', data.numberOverrideProcessor), setting('max', data.numberOverrideProcessor),
  setting('decimals', data.numberOverrideProcessor), setting('displayName', data.displayNameOverrideProcessor),
  setting('thresholds', data.thresholdsOverrideProcessor), setting('mappings', data.valueMappingsOverrideProcessor),
  setting('links', data.dataLinksOverrideProcessor), setting('noValue', asItIs), setting('color', asItIs),
];
const CURVE: Any = {
  drawStyle: 'line', lineInterpolation: 'linear', lineWidth: 1, lineStyle: undefined, fillOpacity: 0, gradientMode: 'none', spanNulls: false,
  insertNulls: false, showPoints: 'never', pointSize: 5, barAlignment: 0, barWidthFactor: 0.6, stacking: { mode: 'none', group: 'A' },
  axisPlacement: 'auto', axisLabel: '', axisColorMode: 'text', axisBorderShow: false, axisCenteredZero: false, axisSoftMin: undefined,
  axisSoftMax: undefined, scaleDistribution: { type: 'linear' }, hideFrom: { tooltip: false, viz: false, legend: false },
  thresholdsStyle: { mode: 'off' }, transform: undefined,
};
const CELL = ['align', 'cellOptions', 'minWidth', 'width', 'inspect', 'filterable'];
data.standardFieldConfigEditorRegistry.setInit(() => standard);
const registry: Any = new data.FieldConfigOptionsRegistry();
registry.setInit(() => [...standard, ...[...Object.keys(CURVE), ...CELL].map((id) => setting(id, asItIs, true))]);
const transformers: Any = data.standardTransformers;
data.standardTransformersRegistry.setInit(() =>
  ['merge', 'organize'].map((id): Any => ({ id, name: id, transformation: transformers[`${id}Transformer`] ?? transformers[`${id}FieldsTransformer`] }))
);

// --- Queries ----------------------------------------------------------------------------------------------------------

const UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };
const inSeconds = (text: string) => Number(text.slice(0, -1)) * UNITS[text.slice(-1)];
const STEPS = [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400];

function filled(expr: string, variables: Any): string {
  return expr.replace(/\$\{?(\w+)\}?/g, (whole, name) => variables[name] ?? whole);
}

async function answer(path: string, parameters: Any): Promise<Any[]> {
  const reply = await (await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`)).json();
  if (reply.status !== 'success') { throw new Error(reply.error); }
  return reply.data.result;
}

const named = (template: string, labels: Any) => template.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '');
const number = (text: string) => (text === 'NaN' ? null : Number(text));

async function framesOf(panel: Any, variables: Any, seconds: number, pixels: number): Promise<data.DataFrame[]> {
  const least = inSeconds(panel.interval ?? '15s');
  const step = Math.max(least, STEPS.find((one) => one * pixels >= seconds * 0.8) ?? 86400);
  const all = { ...variables, __interval: `${step}s`, __rate_interval: `${Math.max(step + least, 4 * least)}s`, __range: `${seconds}s` };
  const frames: data.DataFrame[] = [];
  for (const target of panel.targets) {
    const query = filled(target.expr, all);
    const from = Math.floor((until - seconds) / step) * step;
    const found = await (target.instant ? answer('query', { query, time: until }) : answer('query_range', { query, start: from, end: until, step }));
    if (target.format === 'table') {
      const labels = [...new Set(found.flatMap((one) => Object.keys(one.metric)))].sort();
      const value = panel.targets.length > 1 ? `Value #${target.refId}` : 'Value';
      const fields = labels.map((name): Any => ({ name, type: data.FieldType.string, values: found.map((one) => one.metric[name] ?? null) }));
      fields.push({ name: value, type: data.FieldType.number, values: found.map((one) => number(one.value[1])) });
      if (found.length) { frames.push(data.toDataFrame({ refId: target.refId, fields })); }
      continue;
    }
    for (const one of found) {
      const name = named(target.legendFormat, one.metric);
      const points = new Map<number, string>(target.instant ? [one.value] : one.values);
      const times = target.instant ? [until] : Array.from({ length: Math.floor((until - from) / step) + 1 }, (_, index) => from + index * step);
      frames.push(data.toDataFrame({
        refId: target.refId, name,
        fields: [
          { name: 'Time', type: data.FieldType.time, values: times.map((time) => time * 1000), config: { interval: step * 1000 } },
          { name: 'Value', type: data.FieldType.number, labels: one.metric, config: { displayNameFromDS: name },
            values: target.instant ? [number(one.value[1])] : times.map((time) => (points.has(time) ? number(points.get(time)!) : null)) },
        ],
      }));
    }
  }
  return frames;
}

// --- Panels -----------------------------------------------------------------------------------------------------------

function configured(panel: Any, frames: data.DataFrame[], timeZone: string): data.DataFrame[] {
  const fieldConfig = structuredClone(panel.fieldConfig);
  if (panel.type === 'timeseries') { fieldConfig.defaults.custom = { ...CURVE, ...fieldConfig.defaults.custom }; }
  fieldConfig.defaults.color ??= { mode: 'thresholds' };
  return data.applyFieldOverrides({ data: frames, fieldConfig, replaceVariables: (text: string) => text, theme, timeZone, fieldConfigRegistry: registry });
}

function Cells({ lines, colour }: { lines: Array<[string, Array<number | null>]>; colour: (value: number) => string }) {
  return (
    <div style={{ display: 'grid', height: '100%', gridAutoRows: '1fr', fontSize: 11, gap: 1 }}>
      {lines.map(([name, values]) => (
        <div key={name} style={{ display: 'flex', gap: 1, minHeight: 0 }}>
          <span style={{ width: 170, overflow: 'hidden', whiteSpace: 'nowrap', textOverflow: 'ellipsis' }}>{name}</span>
          {values.map((value, index) => <i key={index} style={{ flex: 1, background: value === null ? 'transparent' : colour(value) }} />)}
        </div>
      ))}
    </div>
  );
}

function heat(panel: Any, frames: data.DataFrame[], timeZone: string): Array<[string, Array<number | null>]> {
  const lines = frames.map((frame): [string, Array<number | null>] => [frame.name!, frame.fields[1].values]);
  if (panel.targets[0].legendFormat !== '{{le}}') { return lines; }
  // Each bucket holds those below it too.
  const limit = (name: string) => (name === '+Inf' ? Infinity : Number(name));
  lines.sort(([one], [other]) => limit(one) - limit(other));
  const format = data.getValueFormat(panel.options.yAxis.unit);
  const shown = (name: string) => (name === '+Inf' ? 'more' : data.formattedValueToString(format(limit(name), 0, undefined, timeZone)));
  return lines
    .map(([name, values], row): [string, Array<number | null>] => [shown(name), values.map((value, at) => value === null ? null : value - (lines[row - 1]?.[1][at] ?? 0))])
    .reverse();
}

function drawn(panel: Any, frames: data.DataFrame[], w: number, h: number, seconds: number, timeZone: string): ReactNode {
  const options = panel.options ?? {};
  if (!frames.length) {
    return <div style={{ display: 'grid', placeItems: 'center', height: h }}>{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>;
  }
  const fields = configured(panel, frames, timeZone);
  switch (panel.type) {
    case 'timeseries': {
      const range: Any = { from: data.dateTime((until - seconds) * 1000), to: data.dateTime(until * 1000), raw: { from: '', to: '' } };
      const more: Any = { options, replaceVariables: (text: string) => text, dataLinkPostProcessor: () => undefined };
      return <TimeSeries frames={fields} width={w} height={h} timeRange={range} timeZone={timeZone} legend={options.legend} {...more}>{() => null}</TimeSeries>;
    }
    case 'table':
      return <Table data={fields[0]} width={w} height={h} initialSortBy={options.sortBy} columnMinWidth={80} />;
    case 'stat':
    case 'gauge': {
      const values = () => data.getFieldDisplayValues({
        fieldConfig: panel.fieldConfig, reduceOptions: { calcs: ['lastNotNull'], values: false }, replaceVariables: (text: string) => text,
        theme, data: fields, timeZone,
      });
      const one = ({ value, width: across, height: down, count, alignmentFactors }: Any) => panel.type === 'stat'
        ? <BigValue value={value.display} count={count} width={across} height={down} theme={theme} colorMode={options.colorMode}
            graphMode={options.graphMode} justifyMode={options.justifyMode} textMode={options.textMode} alignmentFactors={alignmentFactors} />
        : <Gauge value={value.display} field={value.field} width={across} height={down} theme={theme}
            showThresholdMarkers={options.showThresholdMarkers} showThresholdLabels={false} />;
      const more: Any = { getAlignmentFactors: data.getDisplayValueAlignmentFactors, orientation: 'auto', autoGrid: true };
      return <VizRepeater getValues={values} renderValue={one} width={w} height={h} source={fields} renderCounter={0} itemSpacing={3} {...more} />;
    }
    case 'heatmap': {
      const lines = heat(panel, frames, timeZone);
      const most = Math.max(1, ...lines.flatMap(([, values]) => values.map((value) => value ?? 0)));
      return <Cells lines={lines} colour={(value) => value > 0 ? `rgba(87, 148, 242, ${0.15 + 0.85 * Math.sqrt(value / most)})` : 'rgba(128, 128, 128, .06)'} />;
    }
    case 'state-timeline':
      return <Cells lines={heat(panel, frames, timeZone)} colour={(value) => theme.visualization.getColorByName(value === 1 ? 'green' : 'red')} />;
    default:
      return panel.type;
  }
}

function Panel({ panel, variables, seconds, timeZone }: Any) {
  const cell = (width - 32) / 24;
  const [across, down] = [panel.gridPos.w * cell - GAP, panel.gridPos.h * CELL_HEIGHT - GAP];
  const [frames, setFrames] = useState<data.DataFrame[] | string>();
  useEffect(() => {
    framesOf(panel, variables, seconds, across - 60)
      .then((found) => data.transformDataFrame(panel.transformations ?? [], found).subscribe(setFrames))
      .catch((error) => setFrames(String(error)));
  }, []);
  const inside = (w: number, h: number) => typeof frames === 'string' ? frames : frames ? drawn(panel, frames, w, h, seconds, timeZone) : '';
  return (
    <div style={{ position: 'absolute', left: panel.gridPos.x * cell, top: panel.gridPos.y * CELL_HEIGHT }}>
      <PanelChrome width={across} height={down} title={filled(panel.title, variables)} description={panel.description}>{(w, h) => <>{inside(w, h)}</>}</PanelChrome>
    </div>
  );
}

function Dashboard({ board }: { board: Any }) {
  const variables: Any = {};
  for (const one of board.templating.list) {
    variables[one.name] = asked.get(one.name) ?? (one.type === 'textbox' ? one.query : '.+');
  }
  const seconds = Number(asked.get('seconds') ?? inSeconds(board.time.from.replace('now-', '')));
  const timeZone = board.timezone === 'utc' ? 'utc' : 'browser';
  const height = Math.max(...board.panels.map((one: Any) => one.gridPos.y + one.gridPos.h)) * CELL_HEIGHT;
  return (
    <div style={{ padding: 16, width }} id="board" data-height={height + 72}>
      <h1 style={{ fontSize: 18, height: 40, margin: 0 }}>{board.title}</h1>
      <div style={{ position: 'relative', height }}>
        {board.panels.map((one: Any) => one.type === 'row'
          ? <div key={one.id} style={{ position: 'absolute', top: one.gridPos.y * CELL_HEIGHT + 8, fontWeight: 500 }}>{one.collapsed ? '▸' : '▾'} {filled(one.title, variables)}</div>
          : <Panel key={one.id} panel={one} variables={variables} seconds={seconds} timeZone={timeZone} />)}
      </div>
    </div>
  );
}

Object.assign(document.body.style, {
  margin: 0, background: theme.colors.background.canvas, color: theme.colors.text.primary, fontFamily: theme.typography.fontFamily, fontSize: '14px',
});
fetch('dashboard.json').then((reply) => reply.json()).then((board) =>
  createRoot(document.getElementById('root')!).render(<data.ThemeContext.Provider value={theme}><GlobalStyles /><Dashboard board={board} /></data.ThemeContext.Provider>)
);
