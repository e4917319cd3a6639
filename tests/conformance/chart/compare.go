// Compare says where two files of Kubernetes manifests differ: what the chart renders and
// what `isthmus install` would apply.
//
// Objects are compared as values, in any order. Equal by intent although they differ:
// who has made an object (the label app.kubernetes.io/managed-by), the hash by which pods
// notice changed settings, and how settings are written, so they are compared as values
// too. The Namespace is in `isthmus install` alone, because `helm install
// --create-namespace` makes it.
package main

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: compare CHART.yaml INSTALL.yaml")
		os.Exit(2)
	}
	chart, err := read(os.Args[1])
	if err == nil {
		var install map[string]any
		if install, err = read(os.Args[2]); err == nil {
			delete(install, "v1 Namespace /isthmus-system")
			if report(chart, install) {
				return
			}
			os.Exit(1)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}

// read gives the objects of a file by group, kind and name.
func read(path string) (map[string]any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	objects := map[string]any{}
	for document := range bytes.SplitSeq(append([]byte("\n"), text...), []byte("\n---")) {
		var object map[string]any
		if err := yaml.Unmarshal(document, &object); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if len(object) == 0 {
			continue
		}
		metadata, _ := object["metadata"].(map[string]any)
		namespace, _ := metadata["namespace"].(string)
		id := fmt.Sprintf("%v %v %s/%v", object["apiVersion"], object["kind"], namespace, metadata["name"])
		if _, twice := objects[id]; twice {
			return nil, fmt.Errorf("%s: %s stands there twice", path, id)
		}
		objects[id] = normal(object)
	}
	if len(objects) == 0 {
		return nil, fmt.Errorf("%s has no objects", path)
	}
	return objects, nil
}

// normal takes away what differs by intent.
func normal(object map[string]any) map[string]any {
	remove(object, "metadata", "labels", "app.kubernetes.io/managed-by")
	remove(object, "spec", "template", "metadata", "annotations", "isthmus.io/settings-hash")
	data, _ := object["data"].(map[string]any)
	for key, text := range data {
		var settings any
		if err := yaml.Unmarshal([]byte(fmt.Sprint(text)), &settings); err == nil {
			data[key] = settings
		}
	}
	return object
}

// remove takes a field away that must be there, if the map that has it is.
func remove(object map[string]any, path ...string) {
	last := len(path) - 1
	for _, name := range path[:last] {
		object, _ = object[name].(map[string]any)
	}
	if object != nil && object[path[last]] != nil {
		object[path[last]] = "set"
	}
}

// report prints the differences, and says whether there are none.
func report(chart, install map[string]any) bool {
	var lines []string
	walk(&lines, "", chart, install)
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Println("  " + line)
	}
	return len(lines) == 0
}

func walk(lines *[]string, path string, chart, install any) {
	if reflect.DeepEqual(chart, install) {
		return
	}
	a, aIsMap := chart.(map[string]any)
	b, bIsMap := install.(map[string]any)
	if aIsMap && bIsMap {
		for name := range a {
			walk(lines, path+"/"+name, a[name], b[name])
		}
		for name := range b {
			if _, both := a[name]; !both {
				walk(lines, path+"/"+name, nil, b[name])
			}
		}
		return
	}
	c, cIsList := chart.([]any)
	d, dIsList := install.([]any)
	if cIsList && dIsList && len(c) == len(d) {
		for i := range c {
			walk(lines, fmt.Sprintf("%s[%d]", path, i), c[i], d[i])
		}
		return
	}
	*lines = append(*lines, fmt.Sprintf("%s: chart %s, install %s", path, short(chart), short(install)))
}

func short(value any) string {
	if value == nil {
		return "nothing"
	}
	text := strings.ReplaceAll(fmt.Sprintf("%v", value), "\n", "\\n")
	if len(text) > 120 {
		text = text[:120] + "..."
	}
	return text
}
