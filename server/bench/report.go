package bench

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"carillon/server/bench/sample"
)

// goVersion is that of the bench, and of a server that it starts.
var goVersion = runtime.Version()

// Report is what was measured. Its JSON is for programs: members may be added, and none changes its meaning.
type Report struct {
	Version string         `json:"version"` // of carillon
	Go      string         `json:"go"`
	Machine sample.Machine `json:"machine"`
	Results []Result       `json:"results"`
}

// Result is what came of one scenario.
type Result struct {
	Scenario string         `json:"scenario"`
	Settings map[string]any `json:"settings"` // what it was asked to do
	Server   ServerFacts    `json:"server"`
	Figures  []Figure       `json:"figures"`
	Notes    []string       `json:"notes,omitempty"`

	transport string // of the clients
}

// ServerFacts are what may change the figures of a server.
type ServerFacts struct {
	Flags      []string `json:"flags,omitempty"` // beside those the bench gives to every server
	GOGC       string   `json:"gogc,omitempty"`
	GOMEMLIMIT string   `json:"gomemlimit,omitempty"`
	GOMAXPROCS string   `json:"gomaxprocs,omitempty"`
	Engine     string   `json:"transport_engine,omitempty"` // if the server says which
	Filesystem string   `json:"filesystem"`                 // of its data
	Redis      string   `json:"redis,omitempty"`            // that its data lies in
	Running    bool     `json:"was_running"`                // it was not started by the bench
}

// Figure is one number with its name. Value is the median of the runs.
type Figure struct {
	Name   string    `json:"name"`
	Text   string    `json:"text"`
	Unit   string    `json:"unit,omitempty"`
	Better Better    `json:"better"`
	Value  float64   `json:"value"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Runs   []float64 `json:"runs"`
	Target float64   `json:"target,omitempty"` // to be reached; 0: none
	Goal   float64   `json:"goal,omitempty"`   // aimed at; 0: none
}

// add takes what one run measured.
func (r *Result) add(w *world) {
	r.Server = w.facts
	r.Notes = append(r.Notes, w.notes...)
	for _, d := range definitionsOf(r.Scenario, r.transport) {
		v, ok := w.values[d.name]
		if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		if slices.Contains(w.unmarked, d.name) {
			d.target, d.goal = 0, 0
		}
		i := slices.IndexFunc(r.Figures, func(f Figure) bool { return f.Name == d.name })
		if i < 0 {
			i = len(r.Figures)
			r.Figures = append(r.Figures, Figure{
				Name: d.name, Text: d.text, Unit: d.unit, Better: d.better, Target: d.target, Goal: d.goal,
			})
		}
		r.Figures[i].Runs = append(r.Figures[i].Runs, v)
	}
}

// summarize works out medians and bounds.
func (r *Result) summarize() {
	for i := range r.Figures {
		f := &r.Figures[i]
		f.Min, f.Max, f.Value = slices.Min(f.Runs), slices.Max(f.Runs), median(f.Runs)
	}
	slices.Sort(r.Notes)
	r.Notes = slices.Compact(r.Notes)
}

// median returns the middle one, or the mean of the two in the middle.
func median(values []float64) float64 {
	s := slices.Clone(values)
	slices.Sort(s)
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// reached reports whether the figure is as good as that.
func (f *Figure) reached(mark float64) bool {
	if f.Better == Higher {
		return f.Value >= mark
	}
	return f.Value <= mark
}

// Write writes the report for people.
func (r *Report) Write(w io.Writer) error {
	m := &r.Machine
	_, err := fmt.Fprintf(w, "machine   %d cores, %s, %.1f GiB, %s, %s/%s\ncarillon  %s, %s; both ends on this machine\n",
		m.Cores, m.CPU, float64(m.MemoryBytes)/(1<<30), m.Kernel, m.OS, m.Arch, r.Version, r.Go)
	for i := range r.Results {
		if err == nil {
			err = r.Results[i].write(w)
		}
	}
	return err
}

func (r *Result) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s", r.Scenario)
	names := make([]string, 0, len(r.Settings))
	for name := range r.Settings {
		names = append(names, name)
	}
	sort.Strings(names)
	for i, name := range names {
		sep := "; "
		if i > 0 {
			sep = ", "
		}
		fmt.Fprintf(&b, "%s%s %v", sep, name, r.Settings[name])
	}
	fmt.Fprintf(&b, "\nserver: %s\n", r.Server.text())
	b.WriteString(r.table())
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s *ServerFacts) text() string {
	parts := []string{"data on " + s.Filesystem}
	for _, p := range [][2]string{
		{"GOGC", s.GOGC}, {"GOMEMLIMIT", s.GOMEMLIMIT}, {"GOMAXPROCS", s.GOMAXPROCS}, {"transport engine", s.Engine},
		{"flags", strings.Join(s.Flags, " ")}, {"in", s.Redis},
	} {
		if p[1] != "" {
			parts = append(parts, p[0]+" "+p[1])
		}
	}
	if s.Running {
		parts = append(parts, "was running before")
	}
	return strings.Join(parts, ", ")
}

// table returns the figures in columns: with several runs also the least and the most.
func (r *Result) table() string {
	several := false
	for _, f := range r.Figures {
		several = several || len(f.Runs) > 1
	}
	rows := [][]string{{"", "median", "min", "max", "unit", "target", "goal"}}
	for i := range r.Figures {
		f := &r.Figures[i]
		rows = append(rows, []string{
			f.Text, number(f.Value), number(f.Min), number(f.Max), f.Unit, f.against(f.Target), f.against(f.Goal),
		})
	}
	if !several {
		for i := range rows {
			rows[i] = slices.Delete(rows[i], 2, 4)
		}
		rows[0][1] = "value"
	}
	return columns(rows)
}

// against shows a mark, and whether it was reached.
func (f *Figure) against(mark float64) string {
	if mark == 0 {
		return "-"
	}
	sign := "≤ "
	if f.Better == Higher {
		sign = "≥ "
	}
	if f.reached(mark) {
		return sign + number(mark) + " yes"
	}
	return sign + number(mark) + " NO"
}

// columns aligns: text to the left, and what stands in the columns of numbers to the right.
func columns(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	unit := slices.Index(rows[0], "unit")
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 || i == unit {
				line.WriteString(cell + pad + "  ")
			} else {
				line.WriteString(pad + cell + "  ")
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// number writes a figure with as many digits as it is worth, thousands apart.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a < 1:
		return strconv.FormatFloat(v, 'f', 3, 64)
	case a < 100 && a != math.Trunc(a):
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	s := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}
