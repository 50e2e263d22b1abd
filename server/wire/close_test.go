package wire

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// closeRow is a close code as close.json and the table of the protocol's description have it.
type closeRow struct {
	Code CloseCode
	Name string
	Duty string
	Sent bool
}

type closeFile struct {
	Ranges []struct {
		From, To CloseCode
		Duty     string
	}
	Codes  []closeRow
	Others []struct {
		Code CloseCode
		Duty string
	}
}

func TestClose_CodesGoldenFileAndTableAgree(t *testing.T) {
	var file closeFile
	readGolden(t, "close.json", &file)
	if got, want := len(file.Codes), len(closeNames); got != want {
		t.Errorf("close.json has %d codes, want %d", got, want)
	}
	for _, r := range file.Codes {
		if got := r.Code.String(); got != r.Name {
			t.Errorf("%d: got name %q, want %q", r.Code, got, r.Name)
		}
		if got := r.Code.Duty().String(); got != r.Duty {
			t.Errorf("%d: got duty %q, want %q", r.Code, got, r.Duty)
		}
		if got, want := r.Sent, r.Code != CloseLost && r.Code != CloseNormal; got != want {
			t.Errorf("%d: sent is %v, want %v", r.Code, got, want)
		}
	}

	table := readCloseTable(t)
	if got, want := len(table), len(file.Codes); got != want {
		t.Fatalf("the table has %d codes, want %d", got, want)
	}
	for i, want := range file.Codes {
		if got := table[i]; got != want {
			t.Errorf("the table's row %d: got %+v, want %+v", i, got, want)
		}
	}
}

// readCloseTable reads the rows "| 4000 | `going_away` | come back | yes | … |" of api/README.md.
func readCloseTable(t *testing.T) []closeRow {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "api", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	duties := map[string]string{"come back": "come_back", "renew token": "renew_token", "stay away": "stay_away"}
	row := regexp.MustCompile("(?m)^\\| (4\\d{3}) \\| `([a-z_]+)` \\| ([a-z ]+) \\| (yes|never) \\|")
	var rows []closeRow
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.ParseUint(m[1], 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, closeRow{CloseCode(n), m[2], duties[m[3]], m[4] == "yes"})
	}
	return rows
}

func TestClose_TheHundredsTellTheDutyOfCodesThatAreNotListed(t *testing.T) {
	var file closeFile
	readGolden(t, "close.json", &file)
	for _, r := range file.Ranges {
		for c := r.From; c <= r.To; c++ {
			if got := c.Duty().String(); got != r.Duty {
				t.Errorf("%d: got %q, want %q", c, got, r.Duty)
			}
		}
	}
	for _, o := range file.Others {
		if got := o.Code.Duty().String(); got != o.Duty {
			t.Errorf("%d: got %q, want %q", o.Code, got, o.Duty)
		}
	}
	if got := CloseCode(4299).String(); got != "unknown" {
		t.Errorf("got %q for a code without a name, want unknown", got)
	}
}
