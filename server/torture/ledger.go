package torture

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What the rows of a ledger come to is between these lines, which stand before its table. Sum writes it.
const (
	sumBegins = "<!-- sum: begin -->\n"
	sumEnds   = "<!-- sum: end -->\n"
)

// often is how many times each kind of fault has to have been there.
const often = 20

// cells are how many cells a row of a ledger has.
const cells = 10

// Row is the run as a line of a ledger's table: day, commit, form and durability, seed, how long it took, accepted messages, faults, lost
// ones, violations, and the faults by kind. A row without the last has an empty cell there.
func (r *Report) Row(day time.Time, commit string) string {
	kinds := strings.Join(counted(r.Faults), "; ")
	return fmt.Sprintf("| %s | %s | %s, %s | %d | %v | %d | %d | %d | %d | %s |\n", day.Format(time.DateOnly), commit, r.Form, r.Durability, r.Seed,
		r.Took.Round(time.Second), r.Accepted, r.faults(), r.Lost, len(r.Violations), kinds)
}

// sum is what some rows come to.
type sum struct {
	runs, accepted, faults, lost, violations int64
	took                                     time.Duration
}

func (s *sum) add(r *Report, violations int64) {
	s.runs++
	s.took += r.Took
	s.accepted += r.Accepted
	s.faults += int64(r.faults())
	s.lost += r.Lost
	s.violations += violations
}

func (s *sum) row(what string) string {
	return fmt.Sprintf("| %s | %d | %v | %d | %d | %d | %d | %s |\n", what, s.runs, s.took, s.accepted, s.faults, s.lost, s.violations,
		bound(s.accepted, s.lost))
}

// bound says what is shown at 95 % confidence if of so many messages none was lost, by the rule of three: fewer than 3/n are. Of fewer than three
// messages nothing is shown, and where something was lost the rule does not hold.
func bound(accepted, lost int64) string {
	if lost > 0 || accepted < 3 {
		return ""
	}
	return fmt.Sprintf("fewer than one in %d", accepted/3)
}

// unnoted is the kind of faults whose kinds a row does not say.
const unnoted = ""

// Sum returns a ledger with what its rows come to written anew. Runs that may lose, on a failover, are added up apart from those that
// may not.
func Sum(ledger string) (string, error) {
	before, rest, ok := strings.Cut(ledger, sumBegins)
	_, after, ok2 := strings.Cut(rest, sumEnds)
	if !ok || !ok2 {
		return "", fmt.Errorf("torture: the ledger has no place for its sum, which is between the lines %q and %q", strings.TrimSpace(sumBegins), strings.TrimSpace(sumEnds))
	}
	var keeps, mayLose sum
	kinds := make(map[string]int)
	for n, line := range strings.Split(after, "\n") {
		if !strings.HasPrefix(line, "| 2") { // a day
			continue
		}
		r, violations, err := parseRow(line)
		if err != nil {
			return "", fmt.Errorf("torture: line %d of the ledger: %w", strings.Count(ledger[:len(ledger)-len(after)], "\n")+n+1, err)
		}
		of := &keeps
		if r.Durability == Process && (r.Form == Sentinel || r.Form == Cluster) {
			of = &mayLose
		}
		of.add(r, violations)
		for k, c := range r.Faults {
			kinds[k] += c
		}
	}
	var b strings.Builder
	b.WriteString("| runs in which an accepted message | runs | took | messages | faults | lost | violations | at 95 % confidence are lost |\n" +
		"| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n")
	b.WriteString(keeps.row("must not be lost"))
	b.WriteString(mayLose.row("may be, on a failover"))
	b.WriteString("\nFaults by kind: " + cmp.Or(strings.Join(counted(kinds), "; "), "none") + ".")
	if n := kinds[unnoted]; n > 0 {
		fmt.Fprintf(&b, " The kinds of %d more were not noted.", n)
	}
	if few := rare(kinds); len(few) > 0 {
		fmt.Fprintf(&b, "\nFewer than %d times: %s.", often, strings.Join(few, "; "))
	}
	return before + sumBegins + b.String() + "\n" + sumEnds + after, nil
}

// parseRow reads what Row wrote. Violations are known by their number alone.
func parseRow(line string) (r *Report, violations int64, err error) {
	cell := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
	if len(cell) != cells {
		return nil, 0, fmt.Errorf("it has %d cells, not %d", len(cell), cells)
	}
	for i := range cell {
		cell[i] = strings.TrimSpace(cell[i])
	}
	form, durability, ok := strings.Cut(cell[2], ", ")
	cfg, err := Config{Form: Form(form), Durability: Durability(durability), Length: time.Second}.withDefaults()
	if !ok || err != nil {
		return nil, 0, fmt.Errorf("%q is no form and durability: %w", cell[2], err)
	}
	r = &Report{Form: cfg.Form, Durability: cfg.Durability, Faults: make(map[string]int)}
	if r.Took, err = time.ParseDuration(cell[4]); err != nil {
		return nil, 0, err
	}
	faults := int64(0)
	for i, to := range []*int64{&r.Accepted, &faults, &r.Lost, &violations} {
		if *to, err = strconv.ParseInt(cell[5+i], 10, 64); err != nil || *to < 0 {
			return nil, 0, fmt.Errorf("%q is no number of something", cell[5+i])
		}
	}
	if cell[9] == "" {
		r.Faults[unnoted] = int(faults)
		return r, violations, nil
	}
	for _, k := range strings.Split(cell[9], "; ") {
		n, name, _ := strings.Cut(k, " ")
		if r.Faults[name], err = strconv.Atoi(n); err != nil || name == "" {
			return nil, 0, fmt.Errorf("%q is no kind of fault with its number", k)
		}
	}
	if n := r.faults(); int64(n) != faults {
		return nil, 0, fmt.Errorf("its kinds of faults come to %d, not to %d", n, faults)
	}
	return r, violations, nil
}

// counted lists counts, the highest first, without those that were not noted by kind.
func counted(n map[string]int) []string {
	n = maps.Clone(n)
	delete(n, unnoted)
	parts := make([]string, 0, len(n))
	for _, name := range byCount(n) {
		parts = append(parts, fmt.Sprintf("%d %s", n[name], name))
	}
	return parts
}

// rare returns the kinds of faults of every form that there were fewer of than there have to be.
func rare(n map[string]int) (few []string) {
	for _, form := range []Form{Embedded, Standalone, Sentinel, Cluster} {
		w := &world{cfg: Config{Form: form}}
		for _, f := range slices.Concat(w.nodeFaults(), w.storeFaults(), w.networkFaults()) {
			if n[f.name] < often && !slices.Contains(few, f.name) {
				few = append(few, f.name)
			}
		}
	}
	slices.Sort(few)
	return few
}
