package main

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"

	"github.com/alecthomas/kong"

	"carillon/server/auth"
	"carillon/server/config"
)

// configFlags are the flags of the server's configuration: one for each key, made from the table of package config, so
// that they cannot differ from it.
type configFlags struct {
	File string       `name:"config" placeholder:"FILE" help:"YAML file with the configuration (CARILLON_CONFIG)."`
	Keys kong.Plugins `embed:""` // one pointer to a struct, from newKeyStruct
}

func newConfigFlags() configFlags { return configFlags{Keys: kong.Plugins{newKeyStruct()}} }

// newKeyStruct returns a pointer to a struct with a field for each key that has a flag, in the order of config.Keys: a
// *bool or a *string, nil if the flag was not given.
func newKeyStruct() any {
	var fields []reflect.StructField
	for _, k := range config.Keys() {
		if k.Flag == "" {
			continue
		}
		f := reflect.StructField{Name: "Key" + strconv.Itoa(len(fields)), Type: reflect.TypeFor[*string]()}
		help := k.Doc + " (" + k.Env + ")."
		tag := "name:" + strconv.Quote(k.Flag)
		if k.Bool {
			f.Type = reflect.TypeFor[*bool]()
		} else {
			placeholder := k.Default
			if placeholder == "" {
				placeholder = "..."
			}
			tag += " placeholder:" + strconv.Quote(placeholder)
		}
		f.Tag = reflect.StructTag(tag + " help:" + strconv.Quote(help))
		fields = append(fields, f)
	}
	return reflect.New(reflect.StructOf(fields)).Interface()
}

// given returns what was given on the command line, by key.
func (f *configFlags) given() map[string]string {
	flags := make(map[string]string)
	v := reflect.ValueOf(f.Keys[0]).Elem()
	i := 0
	for _, k := range config.Keys() {
		if k.Flag == "" {
			continue
		}
		if field := v.Field(i); !field.IsNil() {
			flags[k.Name] = fmt.Sprint(field.Elem().Interface())
		}
		i++
	}
	return flags
}

// load puts the configuration together and checks it as far as that can be done without starting.
func (f *configFlags) load(a *app) (*config.Loaded, error) {
	file := f.File
	if file == "" {
		file = a.env(envConfig)
	}
	l, err := config.Load(config.Sources{File: file, Env: a.environ, Known: ownEnv(), Flags: f.given()})
	if err != nil {
		return nil, err
	}
	if !l.Dev {
		if err := auth.CheckSecret(l.Secret.Reveal()); err != nil {
			return nil, err
		}
	}
	return l, nil
}

type configCmd struct {
	Check configCheckCmd `cmd:"" help:"Say whether a server would take this configuration."`
	Print configPrintCmd `cmd:"" help:"Print the configuration and where each value came from; secrets are hidden."`
}

type configCheckCmd struct{ configFlags }

// Help is shown under --help.
func (configCheckCmd) Help() string {
	return `Takes the flags of "carillon serve", reads the same file and environment, and starts nothing.

Example:

    carillon config check --dev --log-level debug`
}

// Run executes the command.
func (c *configCheckCmd) Run(a *app) error {
	l, err := c.load(a)
	if err != nil {
		return err
	}
	cfg := gatewayConfig(l.Config, a)
	cfg.Log = nil // what it would log is of a server that starts
	if err := cfg.Check(); err != nil {
		return err
	}
	a.print("the configuration is good")
	return nil
}

type configPrintCmd struct{ configFlags }

// Help is shown under --help.
func (configPrintCmd) Help() string {
	return `What is printed is a configuration file, apart from secrets.

Example:

    carillon config print --dev --limits-queue-messages 100`
}

// plainYAML matches text that means itself in YAML, without quotes.
var plainYAML = regexp.MustCompile(`^[A-Za-z0-9./][A-Za-z0-9_./:-]*$`)

// Run executes the command.
func (c *configPrintCmd) Run(a *app) error {
	l, err := c.load(a)
	if err != nil {
		return err
	}
	for _, s := range l.Settings() {
		value := s.Value
		if !plainYAML.MatchString(value) {
			value = strconv.Quote(value)
		}
		line := fmt.Sprintf("%s: %s", s.Key, value)
		if s.Value == "" || s.Value == "[hidden]" {
			line = "# " + line // as a value it would be refused, or wrong
		}
		a.print("%-50s # %s", line, s.Origin)
	}
	return nil
}
